//! The smallest EC2 client: what Disco needs of Amazon's API, and nothing that it does not.
//!
//! The usual client brings an asynchronous runtime and tens of megabytes of code for some hundred operations; a node of
//! a few megabytes calls about ten. EC2 speaks the Query API: a form in a POST, signed with Signature Version 4, and XML
//! back. This crate signs with Amazon's own `aws-sigv4`, checked against Amazon's published vectors, and blocks: a caller
//! brings the thread.
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
