//! Services without clock, wire or disk: the state's rules and the plan's, command by command.

mod cluster;
mod placement;
mod rolls;
mod state;
