//! What one node does with services and a script, driven input by input.

mod scripts;
mod services;
mod world;
