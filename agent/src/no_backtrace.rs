//! Tells the standard library that no backtrace can be had in a build without unwind tables (build.rs).
//!
//! Its panic hook would walk the stack, find no table for the first frame, and stop; but the linker cannot know that,
//! and keeps a reader of DWARF and a demangler to name frames that never come: a sixteenth of the file. With the walk
//! itself defined here, the compiler sees that nobody is ever called for a frame, and leaves all that out. A panic
//! still prints its message and its place.

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK` of the platform's C++ ABI.
const END_OF_STACK: c_int = 5;

/// Takes the place of the function of libgcc or libunwind, whose only caller here is the standard library's backtrace.
#[expect(
    unsafe_code,
    reason = "the name is the ABI's; what it promises, to call `_frame` for each frame, it keeps: there is none"
)]
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_frame: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}
