//! The SwiftBalancer runtime.
fn main() {}
