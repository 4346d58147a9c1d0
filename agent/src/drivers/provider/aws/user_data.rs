//! What a launched machine runs when it starts: it makes itself a node, and nobody reaches into it.
//!
//! A shell script, which cloud-init runs once, as root. It holds what any process of the machine may read: seeds, the CA's
//! certificate, and a token that is good for this one machine only. The program comes from a node, by its digest.

use super::{super::ProviderError, parameter};
use crate::{
    drivers::{
        pki::pem,
        provider::unit::{self, Beginning, NodeConfig},
    },
    model::{ids::ClusterId, instance::parameter::SEEDS, query::LaunchRequest},
};
use sigv4_ec2::USER_DATA_BYTES_MAX;

/// Stand where only the machine itself knows what belongs there.
const ADDRESS: &str = "@ADDRESS@";
const INSTANCE: &str = "@INSTANCE@";

const SCRIPT: &str = include_str!("user_data.sh");

/// The script for one launch: the same for equal requests.
///
/// # Errors
/// A parameter is missing, or all together are more than EC2 takes.
pub fn user_data(cluster: ClusterId, request: &LaunchRequest) -> Result<String, ProviderError> {
    let given = |name: &str| request.parameters.get(name).map(String::as_str).unwrap_or_default();
    let seeds: Vec<String> = given(SEEDS).split(',').filter(|seed| !seed.is_empty()).map(str::to_owned).collect();
    if seeds.is_empty() || !seeds.iter().all(|seed| is_plain(seed)) {
        return Err(ProviderError::Parameter { name: SEEDS, value: given(SEEDS).to_owned() });
    }
    let digest = |name: &'static str| match given(name) {
        "" => Ok("none"),
        digest if digest.len() == 64 && is_plain(digest) => Ok(digest),
        other => Err(ProviderError::Parameter { name, value: other.to_owned() }),
    };
    let config = NodeConfig {
        name: &format!("n{}", request.ordinal),
        instance: INSTANCE,
        address: ADDRESS,
        cluster,
        cluster_name: &request.cluster_name,
        beginning: Beginning::Join { seeds: &seeds, token: &request.token },
        provider: section(given(parameter::REGION), given(parameter::ENDPOINT)),
    };
    let script = SCRIPT
        .replace("@CA@", pem::certificate_to_pem(&request.ca).trim_end())
        .replace("@TOKEN@", &request.token)
        .replace("@SEEDS@", &seeds.join(" "))
        .replace("@AARCH64@", digest(parameter::PROGRAM_ARM64)?)
        .replace("@X86_64@", digest(parameter::PROGRAM_X86_64)?)
        .replace("@CONFIG@", config.text().trim_end())
        .replace("@SETUP@", &unit::setup());
    if script.len() > USER_DATA_BYTES_MAX {
        return Err(ProviderError::Answer { what: format!("user data has {} bytes, EC2 takes {USER_DATA_BYTES_MAX}", script.len()) });
    }
    Ok(script)
}

/// `[provider]` of a node's configuration.
pub fn section(region: &str, endpoint: &str) -> toml::Table {
    let pairs = [("kind", "aws"), ("region", region), ("endpoint", endpoint)];
    pairs.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.to_owned(), value.into())).collect()
}

/// Letters that a shell takes as they are.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b".:-[]".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{drivers::pki::Authority, model::ids::OperationId};
    use std::{collections::BTreeMap, io::Write as _, process};

    fn request() -> LaunchRequest {
        let parameters = [
            (SEEDS, "10.0.0.1:5080,10.0.0.2:5080"),
            (parameter::REGION, "eu-central-1"),
            (parameter::PROGRAM_ARM64, "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        ];
        LaunchRequest {
            operation: OperationId { cluster: ClusterId(7), epoch: 0, index: 42 },
            ordinal: 2,
            cluster_name: "it's \"mine\"".into(),
            ca: Authority::create(ClusterId(7), 1_700_000_000_000).certificate().to_vec(),
            token: "DISCO1-abc-l0.2a.def".into(),
            seeds: vec![],
            parameters: parameters.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }
    }

    #[test]
    fn a_shell_understands_it_and_it_fits() {
        let script = user_data(ClusterId(7), &request()).expect("all is there");
        assert!(script.len() < USER_DATA_BYTES_MAX, "{} bytes", script.len());
        assert!(script.starts_with("#!/bin/sh\n"), "cloud-init knows a script by this");
        assert!(!script.contains("@CA@") && !script.contains("@SETUP@"), "{script}");
        let mut shell = process::Command::new("sh").arg("-n").stdin(process::Stdio::piped()).spawn().expect("there is a shell");
        shell.stdin.take().expect("it is piped").write_all(script.as_bytes()).expect("it reads");
        assert!(shell.wait().expect("it is ours").success());
        let (from, to) =
            (script.find("data_dir").expect("it is there"), script.find("END_OF_CONFIG\nsed").or(script.rfind("END_OF_CONFIG")));
        let start = script[..from].rfind("END_OF_CONFIG'\n").expect("a heredoc") + "END_OF_CONFIG'\n".len();
        let config: toml::Table = script[start..to.expect("its end")].parse().expect("it is TOML");
        assert_eq!(config["cluster_name"].as_str(), Some("it's \"mine\""));
        assert_eq!((config["advertise"].as_str(), config["instance"].as_str()), (Some(ADDRESS), Some(INSTANCE)));
        assert_eq!(config["provider"]["region"].as_str(), Some("eu-central-1"));
    }

    #[test]
    fn what_a_shell_could_misread_is_refused() {
        for (name, value) in [(SEEDS, "10.0.0.1:5080,$(reboot):1"), (SEEDS, ""), (parameter::PROGRAM_X86_64, "`x`")] {
            let mut parameters: BTreeMap<String, String> = request().parameters;
            parameters.insert(name.into(), value.into());
            let refused = user_data(ClusterId(7), &LaunchRequest { parameters, ..request() }).expect_err(value);
            assert!(refused.to_string().contains(name), "{refused}");
        }
    }
}
