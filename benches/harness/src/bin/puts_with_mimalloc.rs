//! Like `puts`, with the function's allocator.

use mimalloc::MiMalloc;

#[path = "puts/main.rs"]
mod puts;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> Result<(), puts::BoxError> {
    puts::main()
}
