//! Everything that can be seen from outside, over real sockets; one program, so that it is linked once.

mod gateway_faults;
