//! Each provider, held to what all of them promise, and to what it promises by itself.

mod aws;
mod cloud;
mod conformance;
mod hosts;
mod local;
#[path = "../../../sigv4-ec2/tests/cloud/running.rs"]
mod running;
