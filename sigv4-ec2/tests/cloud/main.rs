//! The client against a cloud that nobody here wrote: moto, which checks every signature, behind a proxy that is as slow,
//! forgetful and busy as EC2 is. boto3 reads back what we made, and signs what we signed.
//!
//! `scripts/cloud/up` starts all of it, and installs what it needs; one for all tests, which therefore take turns.

mod errors;
mod faults;
mod identity;
mod operations;
mod readback;
mod running;
mod setup;
