//! Tensor operations. The CPU backend is the specification that every other backend is compared with.
