//! Management of a Keelson machine from the command line.

fn main() {}
