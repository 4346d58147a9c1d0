//! `disco`: the person's command.

mod args;
mod context;
mod journal;
mod message;
mod render;

fn main(){}
