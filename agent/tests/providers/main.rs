//! Each provider, held to what all of them promise, and to what it promises by itself.

mod aws;
mod cloud;
mod conformance;
mod hosts;
mod local;
