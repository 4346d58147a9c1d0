//! Scripts as people write them, good and bad, against the real executor process: what does the person see, and
//! does the next script run fine?

mod cluster;
mod desk;
mod hurts;
mod mistakes;
mod outside;
mod types;
mod works;
