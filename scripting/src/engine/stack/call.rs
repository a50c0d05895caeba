//! `redis.call` and `redis.pcall`: words of a command out, its reply in. The rules are those of the parent.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mlua::ffi::{self, lua_State};
use shardis_storage::number::parse_i64;

use super::{push_bytes, state_of, text};
use crate::engine::state::{HOST, State};
use crate::host::{Stop, Verdict};
use crate::number::{EXACT_DIGITS, general};

/// Nesting of replies that is followed here. Each table takes two places of the stack.
const DEPTH_MAX: usize = 6;

/// The function to which arguments go that are no words of a command.
const REFUSE: c_int = ffi::lua_upvalueindex(2);

/// The function that takes an answer from the state which is not decoded here.
const FINISH: c_int = ffi::lua_upvalueindex(3);

/// Progress of a command.
enum Asked {
    /// Its reply is in the state.
    Answered,
    /// The state says how the script ends.
    Ended,
    /// Its arguments are no words of a command, or no script runs.
    Refused,
}

/// `redis.call` and `redis.pcall`.
pub(super) unsafe extern "C-unwind" fn call(stack: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with a valid stack, as a function of `closure`. Nothing here has anything to drop when Lua may jump: that
    // is so from `push_reply` on. The reply stays as it is meanwhile, since nothing else runs.
    unsafe {
        let state = state_of(stack);
        match ask(stack, state) {
            Asked::Answered => {
                let reply: &[u8] = &*state.reply.as_ptr();
                ffi::lua_settop(stack, 0);
                let mut rest = reply;
                if push_reply(stack, &mut rest, 0) {
                    return 1;
                }
                ffi::lua_settop(stack, 0);
                ffi::lua_pushvalue(stack, FINISH);
            }
            Asked::Ended => {
                ffi::lua_settop(stack, 0);
                ffi::lua_pushvalue(stack, FINISH);
            }
            Asked::Refused => {
                ffi::lua_pushvalue(stack, REFUSE);
                ffi::lua_insert(stack, 1);
            }
        }
        ffi::lua_call(stack, ffi::lua_gettop(stack) - 1, 1);
        1
    }
}

/// Has the host run the command whose words are on the stack.
///
/// # Safety
/// `stack` is valid.
unsafe fn ask(stack: *mut lua_State, state: &State) -> Asked {
    let asked = catch_unwind(AssertUnwindSafe(|| {
        let mut words = state.words.borrow_mut();
        words.clear();
        // SAFETY: functions that only read a string or a number never jump, and the strings are on the stack.
        let are_words = unsafe { take_words(stack, state, |word| words.push(word)) };
        if !are_words || !HOST.is_set() {
            return Asked::Refused;
        }
        let mut reply = state.reply.borrow_mut();
        reply.clear();
        match HOST.with(|host| host.call(&mut words, state.resp.get(), &mut reply)) {
            Verdict::Continue => Asked::Answered,
            Verdict::Stop(stop) => {
                state.end.set(Some(stop));
                Asked::Ended
            }
        }
    }));
    asked.unwrap_or_else(|panic| {
        state.panic.replace(Some(panic));
        state.end.set(Some(Stop::Host));
        Asked::Ended
    })
}

/// Passes the words on the stack to `push`, which says whether it takes them. False if there are none, if one is neither a string nor a
/// number, or if they take more memory than the engine has.
///
/// # Safety
/// `stack` is valid.
unsafe fn take_words(stack: *mut lua_State, state: &State, mut push: impl FnMut(&[u8]) -> bool) -> bool {
    // SAFETY: see the caller. A string stays on the stack while its bytes are used.
    unsafe {
        let count = ffi::lua_gettop(stack);
        let mut bytes = 0;
        for index in 1..=count {
            let is_taken = match ffi::lua_type(stack, index) {
                ffi::LUA_TSTRING => {
                    let word = text(stack, index);
                    bytes += word.len();
                    state.check_buffer(bytes).is_ok() && push(word)
                }
                ffi::LUA_TNUMBER => push(&general(ffi::lua_tonumber(stack, index), EXACT_DIGITS)),
                _ => false,
            };
            if !is_taken {
                return false;
            }
        }
        count > 0
    }
}

/// Pushes the value that a reply stands for. False if it has to be decoded elsewhere; the stack then has more values than before.
///
/// # Safety
/// `stack` is valid and has room; no frame up to the next protected call has anything to drop.
unsafe fn push_reply(stack: *mut lua_State, rest: &mut &[u8], depth: usize) -> bool {
    let Some((&kind, behind)) = rest.split_first() else {
        return false;
    };
    let Some(end) = behind.iter().position(|&byte| byte == b'\r') else {
        return false;
    };
    let (line, behind) = behind.split_at(end);
    *rest = behind.get(2..).unwrap_or_default();
    // SAFETY: as the caller has promised.
    unsafe {
        if kind == b'+' {
            ffi::lua_createtable(stack, 0, 1);
            push_bytes(stack, b"ok");
            push_bytes(stack, line);
            ffi::lua_rawset(stack, -3);
            return true;
        }
        let Some(number) = parse_i64(line) else {
            return false;
        };
        match kind {
            b':' => ffi::lua_pushnumber(stack, number as f64),
            b'$' | b'*' if number < 0 => ffi::lua_pushboolean(stack, 0),
            b'$' => {
                let Some((bytes, behind)) = rest.split_at_checked(number as usize) else {
                    return false;
                };
                *rest = behind.get(2..).unwrap_or_default();
                push_bytes(stack, bytes);
            }
            b'*' => return push_sequence(stack, rest, number, depth),
            _ => return false,
        }
    }
    true
}

/// Pushes a table of so many replies; see [`push_reply`].
///
/// # Safety
/// As for [`push_reply`].
unsafe fn push_sequence(stack: *mut lua_State, rest: &mut &[u8], count: i64, depth: usize) -> bool {
    // No element is shorter than three bytes.
    let is_possible = depth < DEPTH_MAX && count as usize <= rest.len() / 3;
    let Ok(count) = c_int::try_from(count) else {
        return false;
    };
    if !is_possible {
        return false;
    }
    // SAFETY: as the caller has promised.
    unsafe {
        ffi::lua_createtable(stack, count, 0);
        for index in 1..=count {
            if !push_reply(stack, rest, depth + 1) {
                return false;
            }
            ffi::lua_rawseti_(stack, -2, index);
        }
    }
    true
}
