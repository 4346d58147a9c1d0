//! What one node does by itself: reads, writes and restarts, services and a script, driven input by input.

mod basics;
mod scripts;
mod services;
mod world;
