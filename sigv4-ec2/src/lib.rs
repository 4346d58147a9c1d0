//! The smallest EC2 client: what Disco needs of Amazon's API, and nothing that it does not.
//!
//! The usual client brings an asynchronous runtime and tens of megabytes of code for some hundred operations; a node of
//! a few megabytes calls about ten. EC2 speaks the Query API: a form in a POST, signed with Signature Version 4, and XML
//! back. This crate will hold all of that; today it holds the part that must not be wrong, the signing, over Amazon's
//! own `aws-sigv4` and checked against Amazon's published vectors.
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

mod sign;

pub use sign::{Credentials, FORM, Request, Scope, SignError, Signed, Style, sign, sign_query};
