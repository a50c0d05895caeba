//! The start of a script or function: its keys and arguments in, its reply out. The rules are those of the parent.

use std::cell::Cell;
use std::ffi::c_int;

use mlua::ffi::{self, lua_State};
use shardis_protocol::{Arguments, Encoder, Resp};

use super::{push_bytes, state_of, text};
use crate::engine::state::State;
use crate::library::arguments::c_long;

/// Elements of a table, and bytes of each, up to which the reply of a script is encoded here. The steps of longer ones are counted.
const ELEMENTS_MAX: c_int = 250;
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Upvalues: the handler of errors, the tables of functions, the globals of scripts.
const HANDLER: c_int = ffi::lua_upvalueindex(2);
const SCRIPTS: c_int = ffi::lua_upvalueindex(3);
const FUNCTIONS: c_int = ffi::lua_upvalueindex(4);
const GLOBALS: c_int = ffi::lua_upvalueindex(5);

/// Upvalue: a table with the value that a script returns or ends with, unless its reply is encoded here, and the tables of its keys
/// and arguments.
const SLOTS: c_int = ffi::lua_upvalueindex(8);

/// The place of the value in that table.
pub(super) const OUT: c_int = 1;

/// Globals of scripts: the upvalue that is the name of one, and the place of its table.
const KEYS: (c_int, c_int) = (ffi::lua_upvalueindex(6), 2);
const ARGUMENTS: (c_int, c_int) = (ffi::lua_upvalueindex(7), 3);

/// Number of the upvalue that is the first of [`FIELD_NAMES`].
const FIELDS: usize = 9;

/// Keys, or arguments, up to which their table serves the next script as well.
const KEPT_ELEMENTS_MAX: usize = 8;

/// Names of the fields that make a table stand for something else than a sequence.
pub(super) const FIELD_NAMES: [&str; 7] = [
    "err",
    "ok",
    "double",
    "map",
    "set",
    "big_number",
    "verbatim_string",
];

/// Runs a script or a function: its place, and whether it is a function.
pub(super) unsafe extern "C-unwind" fn launch(stack: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with a valid stack, as a function of `closure`. Nothing here has anything to drop when Lua may jump. The
    // keys and arguments stay as they are until the script runs, and nothing refers to them then.
    unsafe {
        let state = state_of(stack);
        let place = ffi::lua_tonumber(stack, 1) as c_int;
        let is_function = ffi::lua_toboolean(stack, 2) != 0;
        ffi::lua_settop(stack, 0);
        ffi::lua_pushvalue(stack, HANDLER);
        ffi::lua_rawgeti_(stack, if is_function { FUNCTIONS } else { SCRIPTS }, place);
        let input = &*state.input.as_ptr();
        let words = input.words.arguments();
        let (keys, arguments, is_large) = (input.keys, words.len() - input.keys, input.is_large());
        if is_function {
            push_table(stack, words, 0, keys);
            push_table(stack, words, keys, arguments);
        } else {
            set_global(stack, KEYS, (words, 0, keys), &state.kept_keys);
            set_global(stack, ARGUMENTS, (words, keys, arguments), &state.kept_arguments);
        }
        let passed = if is_function { 2 } else { 0 };
        let is_ok = ffi::lua_pcall(stack, passed, 1, 1) == ffi::LUA_OK;
        let is_encoded = is_ok && encode(stack, state);
        ffi::lua_settop(stack, 2);
        if !is_encoded {
            // The table has this element, so that no memory is needed.
            ffi::lua_rawseti_(stack, SLOTS, OUT);
        }
        if !is_function {
            state.kept_keys.set(kept(stack, KEYS, keys, is_large));
            state
                .kept_arguments
                .set(kept(stack, ARGUMENTS, arguments, is_large));
        }
        ffi::lua_pushboolean(stack, c_int::from(is_ok));
        ffi::lua_pushboolean(stack, c_int::from(is_encoded));
        2
    }
}

/// Pushes a table of so many words.
///
/// # Safety
/// `stack` has room; no frame up to the next protected call has anything to drop.
unsafe fn push_table(stack: *mut lua_State, words: Arguments<'_>, first: usize, count: usize) {
    // SAFETY: as the caller has promised. No request has as many words as an int can count.
    unsafe {
        ffi::lua_createtable(stack, count as c_int, 0);
        fill(stack, words, first, count);
    }
}

/// Fills the table on top of the stack with so many words.
///
/// # Safety
/// As for [`push_table`].
unsafe fn fill(stack: *mut lua_State, words: Arguments<'_>, first: usize, count: usize) {
    for index in 0..count {
        // SAFETY: as the caller has promised.
        unsafe {
            push_bytes(stack, words.at(first + index));
            ffi::lua_rawseti_(stack, -2, index as c_int + 1);
        }
    }
}

/// Makes words a global of scripts. `kept` says for how many of them the table of the last script will do.
///
/// # Safety
/// As for [`push_table`], in [`launch`].
unsafe fn set_global(
    stack: *mut lua_State,
    (name, place): (c_int, c_int),
    (words, first, count): (Arguments<'_>, usize, usize),
    kept: &Cell<Option<usize>>,
) {
    // SAFETY: as the caller has promised.
    unsafe {
        if kept.take() == Some(count) {
            ffi::lua_rawgeti_(stack, SLOTS, place);
            fill(stack, words, first, count);
            ffi::lua_settop(stack, -2);
        } else {
            ffi::lua_pushvalue(stack, name);
            push_table(stack, words, first, count);
            ffi::lua_pushvalue(stack, -1);
            ffi::lua_rawseti_(stack, SLOTS, place);
            ffi::lua_rawset(stack, GLOBALS);
        }
    }
}

/// The number of words for which the table of a global serves the next script as well: it has the elements that it was given, or
/// others in their places, and nothing else. A table that does not, or takes much memory, is given up.
///
/// Nothing of a script outlives its run, so that nobody else refers to the table.
///
/// # Safety
/// `stack` is that of [`launch`] and has room.
unsafe fn kept(
    stack: *mut lua_State,
    (name, place): (c_int, c_int),
    count: usize,
    is_large: bool,
) -> Option<usize> {
    // SAFETY: only functions are called that never jump: the keys that `lua_next` goes on from come from itself, and the places that
    // are set are there.
    unsafe {
        ffi::lua_rawgeti_(stack, SLOTS, place);
        let is_intact = count <= KEPT_ELEMENTS_MAX && !is_large && has_elements(stack, count);
        if !is_intact {
            ffi::lua_pushboolean(stack, 0);
            ffi::lua_rawseti_(stack, SLOTS, place);
            ffi::lua_pushvalue(stack, name);
            ffi::lua_pushnil(stack);
            ffi::lua_rawset(stack, GLOBALS);
        }
        is_intact.then_some(count)
    }
}

/// Whether the value on top of the stack is a table with so many elements and nothing else. Leaves more values there.
///
/// # Safety
/// `stack` is valid and has room.
unsafe fn has_elements(stack: *mut lua_State, count: usize) -> bool {
    // SAFETY: as in `kept`.
    unsafe {
        if ffi::lua_type(stack, -1) != ffi::LUA_TTABLE
            || ffi::lua_getmetatable(stack, -1) != 0
            || ffi::lua_objlen(stack, -1) != count
        {
            return false;
        }
        let mut left = count;
        ffi::lua_pushnil(stack);
        while ffi::lua_next(stack, -2) != 0 {
            if left == 0 {
                return false;
            }
            left -= 1;
            ffi::lua_settop(stack, -2);
        }
        left == 0
    }
}

/// Encodes the value on top of the stack as a reply in the state, if it is a plain one. False if it has to be encoded elsewhere.
///
/// # Safety
/// `stack` is valid and has room.
unsafe fn encode(stack: *mut lua_State, state: &State) -> bool {
    let mut result = state.result.borrow_mut();
    result.clear();
    let mut encoder = Encoder::new(&mut result, state.reply_resp.get());
    // SAFETY: only functions are called that never jump.
    unsafe {
        match ffi::lua_type(stack, -1) {
            ffi::LUA_TTABLE => is_plain(stack) && encode_sequence(stack, state, &mut encoder),
            _ => encode_scalar(stack, state, &mut encoder),
        }
    }
}

/// Encodes the value on top of the stack, unless it is a table or too long. Leaves it there.
///
/// # Safety
/// `stack` is valid.
unsafe fn encode_scalar(stack: *mut lua_State, state: &State, encoder: &mut Encoder<'_>) -> bool {
    // SAFETY: only functions are called that never jump, and the string stays on the stack.
    unsafe {
        match ffi::lua_type(stack, -1) {
            ffi::LUA_TSTRING => {
                let text = text(stack, -1);
                if text.len() > TEXT_BYTES_MAX {
                    return false;
                }
                encoder.bulk(text);
            }
            ffi::LUA_TNUMBER => encoder.integer(c_long(ffi::lua_tonumber(stack, -1))),
            ffi::LUA_TBOOLEAN => match (ffi::lua_toboolean(stack, -1) != 0, state.resp.get()) {
                (value, Resp::V3) => encoder.boolean(value),
                (true, Resp::V2) => encoder.integer(1),
                (false, Resp::V2) => encoder.null(),
            },
            ffi::LUA_TNIL => encoder.null(),
            _ => return false,
        }
    }
    true
}

/// Whether the table on top of the stack stands for a sequence: it has neither a metatable nor one of the fields that mean something.
///
/// # Safety
/// As for [`encode`].
unsafe fn is_plain(stack: *mut lua_State) -> bool {
    // SAFETY: functions that look up fields without metatables never jump.
    unsafe {
        if ffi::lua_getmetatable(stack, -1) != 0 {
            return false;
        }
        for field in 0..FIELD_NAMES.len() {
            ffi::lua_pushvalue(stack, ffi::lua_upvalueindex((FIELDS + field) as c_int));
            ffi::lua_rawget_(stack, -2);
            if ffi::lua_type(stack, -1) != ffi::LUA_TNIL {
                return false;
            }
            ffi::lua_settop(stack, -2);
        }
    }
    true
}

/// Encodes the sequence on top of the stack, unless it is long or has tables in it.
///
/// # Safety
/// As for [`encode`].
unsafe fn encode_sequence(stack: *mut lua_State, state: &State, encoder: &mut Encoder<'_>) -> bool {
    // SAFETY: functions that look up elements without metatables never jump.
    unsafe {
        let expected = ffi::lua_objlen(stack, -1);
        if expected > ELEMENTS_MAX as usize {
            return false;
        }
        let length = encoder.deferred_array(expected);
        for index in 1..=ELEMENTS_MAX {
            ffi::lua_rawgeti_(stack, -1, index);
            if ffi::lua_type(stack, -1) == ffi::LUA_TNIL {
                ffi::lua_settop(stack, -2);
                encoder.close(length, index as usize - 1);
                return true;
            }
            if !encode_scalar(stack, state, encoder) {
                return false;
            }
            ffi::lua_settop(stack, -2);
        }
        false
    }
}
