//! Whole TLS handshakes in memory: who gets through to whom.

use super::{Authority, JoinToken, PkiError, Trust, ca_digest, check_csr, joiner_tls, new_csr, new_key, public_key, wall_ms};
use crate::model::{
    authority::{Authorities, Certificate, NextKeys},
    ids::{ClusterId, NodeId},
    io::Keyring,
    limits::{ADMIN_CERTIFICATE_TTL_MS, CERTIFICATE_TTL_MS},
    query::Admission,
};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Error, ServerConfig, ServerConnection,
    crypto::ring::sign::any_eddsa_type,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::sync::Arc;

const CLUSTER: ClusterId = ClusterId(0xc1);

fn node(authority: &Authority, id: u64, stamp_ms: u64) -> Arc<Trust> {
    let key = new_key();
    let certificate = authority.sign_node(NodeId(id), &public_key(&key).expect("good"), stamp_ms).expect("32 bytes");
    installed(authority, &certificate, &key)
}

fn admin(authority: &Authority, now_ms: u64) -> Arc<Trust> {
    let key = new_key();
    let certificate = authority.sign_admin(&public_key(&key).expect("good"), now_ms).expect("32 bytes");
    installed(authority, &certificate, &key)
}

fn installed(authority: &Authority, certificate: &[u8], key: &[u8]) -> Arc<Trust> {
    let trust = Trust::new();
    trust.install(certificate, key, authority.certificate()).expect("they belong together");
    trust
}

/// The certificate the server saw, or in whose eyes it failed and why.
fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Option<Vec<u8>>, String> {
    let mut client = ClientConnection::new(client, "node.disco".try_into().expect("a name")).expect("settings are whole");
    let mut server = ServerConnection::new(server).expect("settings are whole");
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).expect("memory takes all");
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).expect("memory gives all");
            server.process_new_packets().map_err(|error| format!("server: {}", words(error)))?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("memory takes all");
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("memory gives all");
            client.process_new_packets().map_err(|error| format!("client: {}", words(error)))?;
        }
    }
    Ok(server.peer_certificates().map(|chain| chain[0].to_vec()))
}

fn words(error: Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.to_string(),
        other => other.to_string(),
    }
}

#[test]
fn nodes_and_administrators_of_a_cluster_get_through_and_nobody_else() {
    let now = wall_ms();
    let ours = Authority::create(CLUSTER, now);
    let theirs = Authority::create(ClusterId(0xc2), now);
    // Pretends to be ours: the same names, another key.
    let forged = Authority::create(CLUSTER, now);
    let server = node(&ours, 1, now);
    let long_ago = now - 2 * CERTIFICATE_TTL_MS;
    let with = |caller: Arc<Trust>| caller.client_tls(None);
    let sees_ours = |stranger: &Arc<Trust>| {
        // A stranger's certificate, but it trusts our authority: only the server can object.
        let shown = Arc::clone(&stranger.client_tls(None).client_auth_cert_resolver);
        let mut tls = (*server.client_tls(None)).clone();
        tls.client_auth_cert_resolver = shown;
        Arc::new(tls)
    };
    let table: Vec<(&str, Arc<ClientConfig>, Result<bool, &str>)> = vec![
        ("a node", with(node(&ours, 2, now)), Ok(true)),
        ("a node whose certificate expired", with(node(&ours, 2, long_ago)), Ok(true)),
        ("a node whose clock is ahead", with(node(&ours, 2, now + 3 * CERTIFICATE_TTL_MS)), Ok(true)),
        ("an administrator", with(admin(&ours, now)), Ok(true)),
        (
            "an administrator of long ago",
            with(admin(&ours, now - 2 * ADMIN_CERTIFICATE_TTL_MS)),
            Err("server: invalid peer certificate: Expired"),
        ),
        ("the node that was expected", node(&ours, 2, now).client_tls(Some(NodeId(1))), Ok(true)),
        (
            "another node than expected",
            node(&ours, 2, now).client_tls(Some(NodeId(9))),
            Err("client: node 0000000000000001 answers where node 0000000000000009 was expected"),
        ),
        (
            "a caller of another cluster",
            with(node(&theirs, 1, now)),
            Err("client: the certificate is of cluster 00000000000000c1, this is cluster 00000000000000c2"),
        ),
        (
            "a certificate of another cluster",
            sees_ours(&node(&theirs, 1, now)),
            Err("server: the certificate is of cluster 00000000000000c2, this is cluster 00000000000000c1"),
        ),
        ("a joiner with our token", joiner_tls(ca_digest(ours.certificate())), Ok(false)),
        (
            "a joiner with another token",
            joiner_tls(ca_digest(theirs.certificate())),
            Err("client: no certificate of the server has the CA digest of the token"),
        ),
    ];
    for (who, client, expected) in table {
        let outcome = shake(client, server.server_tls()).map(|certificate| certificate.is_some());
        assert_eq!(outcome, expected.map_err(str::to_owned), "{who}");
    }
    let forgery = shake(sees_ours(&node(&forged, 2, now)), server.server_tls()).expect_err("not signed by us");
    assert!(forgery.starts_with("server: the certificate was not signed by this cluster's authority"), "{forgery}");
    let impostor = shake(with(admin(&ours, now)), admin(&ours, now).server_tls()).expect_err("administrators are no servers");
    assert_eq!(impostor, "client: the certificate is not a node's");
}

#[test]
fn a_digest_does_not_cover_a_certificate_of_somebody_else() {
    // In between sits a server that shows our CA, but a leaf that another signed.
    let now = wall_ms();
    let (ours, forged) = (Authority::create(CLUSTER, now), Authority::create(CLUSTER, now));
    let key = new_key();
    let leaf = forged.sign_node(NodeId(1), &public_key(&key).expect("good"), now).expect("32 bytes");
    let chain = [leaf, ours.certificate().to_vec()].map(CertificateDer::from).to_vec();
    let signing = any_eddsa_type(&PrivatePkcs8KeyDer::from(key)).expect("just made");
    let mut between = (*node(&ours, 1, now).server_tls()).clone();
    between.cert_resolver = Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, signing)));
    let error = shake(joiner_tls(ca_digest(ours.certificate())), Arc::new(between)).expect_err("the leaf is forged");
    assert!(error.starts_with("client: the certificate was not signed by this cluster's authority"), "{error}");
}

#[test]
fn a_renewed_certificate_is_shown_through_the_same_settings() {
    let now = wall_ms();
    let authority = Authority::create(CLUSTER, now);
    let (server, client) = (node(&authority, 1, now), node(&authority, 2, now - CERTIFICATE_TTL_MS * 3 / 4));
    let (server_tls, client_tls) = (server.server_tls(), client.client_tls(None));
    let before = shake(Arc::clone(&client_tls), Arc::clone(&server_tls)).expect("gets through").expect("shows one");
    assert_eq!(server.renewal(), None, "its certificate is fresh");
    let csr = client.renewal().expect("two thirds of its life are over");
    let manager = server;
    manager.set_keyring(Some(&keyring(&authority))).expect("they belong together");
    let own_key = client.identity().expect("installed").public_key;
    let renewed = manager.renew(NodeId(2), &own_key, &csr).expect("for the same key");
    let other_csr = new_csr(&new_key()).expect("good");
    assert_eq!(manager.renew(NodeId(2), &own_key, &other_csr), Err(PkiError::RequestForOtherKey));
    client.install_renewed(&renewed).expect("for our key");
    let after = shake(client_tls, server_tls).expect("gets through").expect("shows one");
    assert!(before != after && after == renewed);
    assert_eq!(client.renewal(), None);
}

fn keyring(authority: &Authority) -> Keyring {
    Keyring { ca_key: authority.key(), join_key: vec![0; 32], secrets_key: vec![0; 32], epoch: 0, next: None }
}

#[test]
fn two_authorities_are_believed_while_one_gives_way_and_only_the_new_one_after() {
    let now = wall_ms();
    let (old, new) = (Authority::create(CLUSTER, now), Authority::create(CLUSTER, now));
    let trusted = |authorities: &[&Authority]| authorities.iter().map(|a| Certificate(a.certificate().to_vec())).collect();
    let told = |authorities: &[&Authority], certify, version| Authorities {
        trusted: trusted(authorities),
        certify,
        version,
        show_newest: version == 3,
    };
    let gets_through = |from: &Arc<Trust>, to: &Arc<Trust>| shake(from.client_tls(None), to.server_tls()).is_ok();
    let (manager, peer, behind) = (node(&old, 1, now), node(&old, 2, now), node(&old, 3, now));
    let mut keys = keyring(&old);
    keys.next = Some(NextKeys { ca: new.certificate().to_vec(), ca_key: new.key(), join_key: vec![1; 32], term: 1 });

    for trust in [&manager, &peer] {
        assert_eq!(trust.learn(&told(&[&old, &new], false, 1)), Ok(true));
        assert_eq!((trust.learn(&told(&[&old, &new], false, 1)), trust.renewal()), (Ok(false), None));
    }
    manager.set_keyring(Some(&keys)).expect("both are known");
    for trust in [&manager, &peer] {
        trust.learn(&told(&[&old, &new], true, 2)).expect("believed already");
        let own = trust.identity().expect("installed");
        let super::Subject::Node(id) = own.subject else { panic!("a node's") };
        let csr = trust.renewal().expect("the new one is to sign it");
        trust.install_renewed(&manager.renew(id, &own.public_key, &csr).expect("it has the key")).expect("its own");
        assert_eq!(trust.renewal(), None);
        assert_eq!(trust.papers().believes, trust.papers().certified);
        assert_eq!(trust.learn(&told(&[&old], false, 0)), Ok(false), "an old word is void");
    }
    // Who has not heard of it yet calls those that have; and they call each other.
    assert!(gets_through(&behind, &manager) && gets_through(&peer, &manager) && gets_through(&manager, &peer));
    assert!(!gets_through(&peer, &behind), "it could not know");

    // Who shows the new one already and who does not get through to each other.
    manager.learn(&told(&[&old, &new], true, 3)).expect("it has a certificate");
    assert_eq!((manager.ca(), manager.papers().shows), (new.certificate().to_vec(), manager.papers().certified));
    assert!(gets_through(&peer, &manager) && gets_through(&manager, &peer) && !gets_through(&behind, &manager));
    peer.learn(&told(&[&old, &new], true, 3)).expect("it has a certificate");
    // Nor does it matter who drops the old one first.
    manager.learn(&told(&[&new], false, 4)).expect("it has a certificate");
    assert!(gets_through(&peer, &manager) && gets_through(&manager, &peer));
    peer.learn(&told(&[&new], false, 4)).expect("it has a certificate");
    assert!(gets_through(&peer, &manager) && !gets_through(&behind, &manager) && !gets_through(&manager, &behind));
    assert_eq!(behind.learn(&told(&[&new], false, 4)), Err(PkiError::LeftBehind));
    // A manager whose log is behind holds the old keyring still, and must start with it.
    manager.set_keyring(Some(&keys)).expect("the new keys are in it");
    let key = new_key();
    let csr = new_csr(&key).expect("good");
    let signed = manager.renew(NodeId(4), &public_key(&key).expect("good"), &csr).expect("it has a key that is believed");
    installed(&new, &signed, &key);
    assert!(manager.set_keyring(Some(&keyring(&old))).is_err(), "it could sign nothing that is believed");
    let after = keyring(&new);
    manager.set_keyring(Some(&after)).expect("the new one alone");
    // A renewal by the one that was dropped is none, and a certificate of it that is left on disk is passed over.
    let own = manager.identity().expect("installed");
    let late = old.sign_node(NodeId(1), &own.public_key, now).expect("32 bytes");
    assert!(matches!(manager.install_renewed(&late), Err(PkiError::NotSigned(_))));
    let (key, known) = (new_key(), told(&[&new], false, 4));
    let of = |ca: &Authority| ca.sign_node(NodeId(9), &public_key(&key).expect("good"), now).expect("32 bytes");
    let restarted = Trust::new();
    restarted.install_all(&[of(&old), of(&new)], &key, known.clone()).expect("one is good");
    assert_eq!(restarted.held(), Some((known, vec![of(&new)])));
}

#[test]
fn an_admission_gives_the_same_bytes_from_every_manager() {
    let authority = Authority::create(CLUSTER, wall_ms());
    let key = new_key();
    let admission = Admission {
        node: NodeId(7),
        cluster: CLUSTER,
        cluster_name: "home".into(),
        public_key: check_csr(&new_csr(&key).expect("good")).expect("self-signed"),
        stamp_ms: 1_700_000_000_123,
        ca: authority.certificate().to_vec(),
        managers: Vec::new(),
    };
    let (one, two) = (node(&authority, 1, wall_ms()), node(&authority, 2, wall_ms()));
    assert_eq!(one.certify(&admission), Err(PkiError::NoKeyring));
    for manager in [&one, &two] {
        manager.set_keyring(Some(&keyring(&authority))).expect("they belong together");
    }
    let certificate = one.certify(&admission).expect("can sign");
    assert_eq!(two.certify(&admission), Ok(certificate.clone()));
    let identity = super::Identity::read(&certificate).expect("ours");
    assert_eq!((identity.subject, identity.cluster), (super::Subject::Node(NodeId(7)), CLUSTER));
    assert_eq!(identity.public_key, admission.public_key);
    assert_eq!(identity.not_before_ms, 1_699_913_600_000);
    assert_eq!(identity.not_after_ms, 1_702_592_000_000);
    one.set_keyring(None).expect("nothing to be wrong");
    assert_eq!(one.certify(&admission), Err(PkiError::NoKeyring));
}

#[test]
fn mixed_up_files_are_refused_and_change_nothing() {
    let now = wall_ms();
    let (ours, theirs) = (Authority::create(CLUSTER, now), Authority::create(ClusterId(0xc2), now));
    let key = new_key();
    let certificate = ours.sign_node(NodeId(1), &public_key(&key).expect("good"), now).expect("32 bytes");
    let trust = Trust::new();
    assert!(trust.install(&certificate, &new_key(), ours.certificate()).is_err());
    assert!(trust.install(&certificate, &key, theirs.certificate()).is_err());
    // Another CA of the same name: what it did not sign does not become its own.
    let forged = Authority::create(CLUSTER, now);
    assert!(matches!(trust.install(&certificate, &key, forged.certificate()), Err(PkiError::NotSigned(_))));
    assert!(trust.install(&certificate[1..], &key, ours.certificate()).is_err());
    assert!(trust.install(&certificate, &key[1..], ours.certificate()).is_err());
    assert!(trust.set_keyring(Some(&keyring(&theirs))).is_err());
    assert_eq!(trust.identity(), None);
    assert!(Authority::open(&theirs.key(), ours.certificate()).is_err());
    assert!(Authority::open(&ours.key(), &certificate).is_err());
    assert!(shake(node(&ours, 1, now).client_tls(None), trust.server_tls()).is_err(), "nothing to show yet");
}

#[test]
fn a_token_carries_the_digest_that_the_joiner_checks() {
    let authority = Authority::create(CLUSTER, wall_ms());
    let token = JoinToken { ca_digest: ca_digest(authority.certificate()), secret: "s".into() };
    let read: JoinToken = token.to_string().parse().expect("just written");
    shake(joiner_tls(read.ca_digest), node(&authority, 1, 0).server_tls()).expect("it is that cluster");
}
