//! The smallest EC2 client: what Disco needs of Amazon's API, and nothing that it does not.
//!
//! The usual client brings an asynchronous runtime and tens of megabytes of code for some hundred operations; a node of
//! a few megabytes calls about ten. EC2 speaks the Query API: a form in a POST, signed with Signature Version 4, and XML
//! back. This crate signs with Amazon's own `aws-sigv4`, checked against Amazon's published vectors, and blocks: a caller
//! brings the thread.
//!
//! ```no_run
//! use sigv4_ec2::{Architecture, Client, Filter, RootDisk, RunInstances};
//!
//! // Credentials come from where Amazon's own tools look: the environment, `~/.aws`, the machine's role.
//! let client = Client::builder("eu-central-1").build()?;
//! let image = client.newest_ubuntu_lts(&Architecture::Arm64)?.expect("every region has one");
//! let launched = client.run_instances(&RunInstances {
//!     tags: [("Name".to_owned(), "one".to_owned())].into(),
//!     root_disk: image.root_device.map(|device| RootDisk { device, size_gib: Some(8), kind: "gp3".to_owned() }),
//!     // The third word is the client token: whatever happens on the way, this is one machine.
//!     ..RunInstances::new(image.id, "t4g.micro", "launch-0001")
//! })?;
//! let running = [Filter::tag("Name", "one"), Filter::new("instance-state-name", ["running"])];
//! for instance in client.describe_instances(&[], &running)? {
//!     println!("{} {:?}", instance.id, instance.public_address);
//! }
//! client.terminate_instances(&[launched[0].id.clone()])?;
//! # Ok::<(), sigv4_ec2::Error>(())
//! ```
//!
//! # What every call does
//!
//! - It blocks, for at most [`Client::PATIENCE`] and the end of one attempt; an attempt connects within 5 s and ends within 20.
//! - Throttling is waited out with growing random pauses. A lost answer is asked for again where a second delivery changes
//!   nothing: always, but for [`Client::allocate_address`]; launching repeats its client token.
//! - A clock that is wrong by more than EC2 forgives is corrected by the service's own, for this client.
//! - Answers, pages and messages are bounded. Secrets are in no error, no `Debug` and no log.
//! - Errors are told apart by [`ErrorCode`], which keeps the service's own word: [`Error::is_not_found`],
//!   [`Error::is_duplicate`], [`ErrorCode::is_capacity`], [`Error::is_ambiguous`].
//!
//! ```
//! use sigv4_ec2::{Client, Credentials, ErrorCode, RunInstances};
//!
//! let client = Client::builder("us-gov-west-1").credentials(Credentials::new("AKIDEXAMPLE", "secret", None)).build()?;
//! assert_eq!((client.partition(), client.endpoint()), ("aws-us-gov", "https://ec2.us-gov-west-1.amazonaws.com/"));
//! // What EC2 would refuse is not even sent.
//! let error = client.run_instances(&RunInstances::new("ami-1", "t4g.micro", "")).expect_err("no client token");
//! assert!(error.to_string().contains("client token"));
//! assert_eq!(ErrorCode::parse("InvalidInstanceID.NotFound"), ErrorCode::InstanceNotFound);
//! # Ok::<(), sigv4_ec2::Error>(())
//! ```
//!
//! # Only the signature
//!
//! ```
//! use sigv4_ec2::{Credentials, sign_query};
//! use std::time::{Duration, SystemTime};
//!
//! let credentials = Credentials::new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None);
//! let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_440_938_160);
//! let form = b"Action=DescribeRegions&Version=2016-11-15";
//! let signed = sign_query("https://ec2.us-east-1.amazonaws.com/", form, &credentials, "us-east-1", at)?;
//! assert!(signed.headers.iter().any(|(name, _)| name == "authorization"));
//! # Ok::<(), sigv4_ec2::SignError>(())
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod client;
mod credentials;
mod endpoint;
mod error;
mod form;
mod http;
mod ops;
mod public_key;
mod reply;
mod retry;
mod sign;
mod time;

pub use client::{Builder, Client};
pub use credentials::{Chain, Credentials, CredentialsError, Environment, Imds, Source};
pub use error::{Error, ErrorCode};
pub use ops::{
    Filter, Tags,
    addresses::Address,
    groups::{Peer, Rule, SecurityGroup},
    iam::{InstanceProfile, Role},
    images::{Architecture, Image, UBUNTU_OWNER, UBUNTU_OWNER_CHINA, UBUNTU_OWNER_US_GOV},
    instances::{Instance, InstanceState, StateChange},
    keys::KeyPair,
    launch::{CLIENT_TOKEN_LETTERS_MAX, Market, RootDisk, RunInstances, USER_DATA_BYTES_MAX},
    machines::{InstanceStatus, InstanceType, SpotPrice},
    networks::{Subnet, Vpc},
    tags::Tagged,
};
pub use public_key::{PublicKey, PublicKeyError};
pub use sign::{FORM, Request, Scope, SignError, Signed, Style, sign, sign_query};
pub use time::{Clock, SystemClock};

/// The crate page's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CratePage;
