//! Which operations of a disk in memory shall fail.

use std::io;
use std::path::Path;

use super::op::DiskOp;

/// The faults that were ordered.
#[derive(Default)]
pub(super) struct Faults {
    once: Vec<Once>,
    standing: Vec<Standing>,
    /// After so many operations everything fails.
    operations_left: Option<usize>,
}

/// Fails one operation.
struct Once {
    kind: &'static str,
    name_holds: String,
    operations_before: usize,
    error: io::ErrorKind,
}

/// Fails every operation until it is taken away.
#[derive(Clone)]
struct Standing {
    /// None stands for all.
    kinds: &'static [&'static str],
    path_holds: String,
    error: io::ErrorKind,
}

impl Faults {
    pub(super) fn add_once(
        &mut self,
        kind: &'static str,
        name_holds: &str,
        operations_before: usize,
        error: io::ErrorKind,
    ) {
        let name_holds = name_holds.to_owned();
        self.once.push(Once { kind, name_holds, operations_before, error });
    }

    pub(super) fn add_standing(
        &mut self,
        kinds: &'static [&'static str],
        path_holds: &str,
        error: io::ErrorKind,
    ) {
        self.standing.push(Standing { kinds, path_holds: path_holds.to_owned(), error });
    }

    pub(super) fn stop_after(&mut self, operations: usize) {
        self.operations_left = Some(operations);
    }

    /// The faults of the machine that starts next: a broken disk stays broken.
    pub(super) fn after_restart(&self) -> Self {
        Self { standing: self.standing.clone(), ..Self::default() }
    }

    /// Whether an operation on a path may be done.
    pub(super) fn check(&mut self, op: &DiskOp, path: &Path) -> io::Result<()> {
        if let Some(left) = &mut self.operations_left {
            *left = left.checked_sub(1).ok_or_else(|| io::Error::other("the power is off"))?;
        }
        if self.once.is_empty() && self.standing.is_empty() {
            return Ok(());
        }
        let text = op.to_string();
        let failed = |error| Err(io::Error::new(error, format!("a fault was ordered for: {text}")));
        let mut due = None;
        for (place, fault) in self.once.iter_mut().enumerate() {
            if fault.kind != op.kind() || !text.contains(&fault.name_holds) {
                continue;
            }
            if fault.operations_before == 0 {
                due = Some(place);
                break;
            }
            fault.operations_before -= 1;
        }
        if let Some(place) = due {
            return failed(self.once.remove(place).error);
        }
        let path = path.to_string_lossy();
        let mut standing = self.standing.iter();
        match standing.find(|fault| fault.hits(op, &path)) {
            Some(fault) => failed(fault.error),
            None => Ok(()),
        }
    }
}

impl Standing {
    fn hits(&self, op: &DiskOp, path: &str) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&op.kind()))
            && path.contains(&self.path_holds)
    }
}
