//! Where experts are, and how they change place.

pub mod table;
