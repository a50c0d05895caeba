//! A fault: which operation on which file it meets, when, and what happens then. As text it is a line of the control file,
//! which tests write and the library reads; both include this file.

use std::fmt;
use std::str::FromStr;

/// An operation on a file, whichever function does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `open`, `openat`.
    Open,
    /// `write`, `writev`, `pwrite`.
    Write,
    /// `fsync`, `fdatasync`, `sync_file_range` of a file.
    Sync,
    /// `fsync` of a directory.
    SyncDirectory,
    /// `rename`; its file is the old name or the new one.
    Rename,
    /// `close`.
    Close,
    /// `ftruncate`.
    Truncate,
    /// `unlink`.
    Unlink,
}

/// Effect of a fault on an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The operation fails with this error code of the system, and does nothing else.
    Fail(i32),
    /// A write writes no more than so many bytes.
    Short(u64),
    /// The operation takes so many milliseconds longer.
    Wait(u64),
    /// The process is killed instead.
    KillBefore,
    /// The process is killed when it is done.
    KillAfter,
    /// The disk has so many bytes left: the write that exceeds them is short, the next ones fail with `ENOSPC`.
    Space(u64),
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The operation it meets.
    pub operation: Operation,
    /// Part of the file's path below the directory under test; `*` is any file.
    pub file: String,
    /// Number of the first such operation that it meets, from 1.
    pub from: u64,
    /// Number of operations that it meets; 0 is all further ones.
    pub times: u64,
    /// Effect on these operations.
    pub act: Act,
}

impl Fault {
    /// A fault that meets every such operation.
    #[must_use]
    pub fn always(operation: Operation, file: &str, act: Act) -> Self {
        Self {
            operation,
            file: file.to_owned(),
            from: 1,
            times: 0,
            act,
        }
    }

    /// A fault that meets one such operation, the `number`-th from 1.
    #[must_use]
    pub fn once(operation: Operation, file: &str, number: u64, act: Act) -> Self {
        Self {
            from: number,
            times: 1,
            ..Self::always(operation, file, act)
        }
    }
}

const OPERATIONS: [(&str, Operation); 8] = [
    ("open", Operation::Open),
    ("write", Operation::Write),
    ("sync", Operation::Sync),
    ("sync-directory", Operation::SyncDirectory),
    ("rename", Operation::Rename),
    ("close", Operation::Close),
    ("truncate", Operation::Truncate),
    ("unlink", Operation::Unlink),
];

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = OPERATIONS
            .into_iter()
            .find(|(_, operation)| operation == self)
            .ok_or(fmt::Error)?;
        f.write_str(name)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            operation,
            file,
            from,
            times,
            act,
        } = self;
        write!(f, "{operation} {file} {from} {times} ")?;
        match act {
            Act::Fail(code) => write!(f, "fail {code}"),
            Act::Short(bytes) => write!(f, "short {bytes}"),
            Act::Wait(milliseconds) => write!(f, "wait {milliseconds}"),
            Act::KillBefore => write!(f, "kill-before 0"),
            Act::KillAfter => write!(f, "kill-after 0"),
            Act::Space(bytes) => write!(f, "space {bytes}"),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let wrong = || format!("'{line}' is no fault");
        let words: Vec<&str> = line.split(' ').collect();
        let &[operation, file, from, times, act, figure] = &words[..] else {
            return Err(wrong());
        };
        let figure: u64 = figure.parse().map_err(|_| wrong())?;
        let found = OPERATIONS.into_iter().find(|(name, _)| *name == operation);
        Ok(Self {
            operation: found.ok_or_else(wrong)?.1,
            file: file.to_owned(),
            from: from.parse().map_err(|_| wrong())?,
            times: times.parse().map_err(|_| wrong())?,
            act: match act {
                "fail" => Act::Fail(figure as i32),
                "short" => Act::Short(figure),
                "wait" => Act::Wait(figure),
                "kill-before" => Act::KillBefore,
                "kill-after" => Act::KillAfter,
                "space" => Act::Space(figure),
                _ => return Err(wrong()),
            },
        })
    }
}
