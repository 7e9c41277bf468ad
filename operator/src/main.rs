//! The SwiftBalancer operator.
fn main() {}
