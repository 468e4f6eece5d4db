//! A component that programs install: a modem, a microcontroller, a boot partition.
//!
//! Told as every program, where the slot is the place of the package: `TERN_SLOT_PATH` is the package to be put in, empty
//! if what is to be put back did not come from here. Besides `TERN_COMPONENT`, `TERN_STEP` (`install` or `revert`) and, to
//! install, `TERN_FORMER`, the package that is in now. Both may run again after a power cut, and a revert also where the
//! install never began.

use std::path::{Path, PathBuf};

use super::ComponentError;
use crate::command::{Context, Program};

pub(super) async fn run(
    program: &Program,
    step: &'static str,
    component: &str,
    context: &Context,
    former: Option<&PathBuf>,
    logs: &Path,
) -> Result<(), ComponentError> {
    let former = former.map(|path| path.to_string_lossy()).unwrap_or_default();
    let more = [("TERN_COMPONENT", component), ("TERN_STEP", step), ("TERN_FORMER", &former)];
    super::run(program, step, context, &more, logs).await
}
