//! The program as people call it: arguments, files, signals, the socket.

mod admin;
mod config;
mod kill;
mod process;
mod serve;
