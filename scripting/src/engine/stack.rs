//! Values on the stack of the interpreter: keys and arguments of a script, words of its commands, their replies, and its own.
//!
//! Every script goes through these functions, most several times. They use the interface of Lua itself, because a value that the
//! binding hands to Rust is kept on a second stack, with a counter of its own on the heap: that costs more than the value. Whatever is
//! unusual (errors, replies of RESP3, tables that are no plain sequence) is left to functions that use the binding.
//!
//! This file and the two below it are the only ones of the crate with `unsafe` code. Their rules:
//! - A function of Lua that allocates may *jump*: it leaves for the protected call below it and skips all frames in between. It is
//!   called only while no frame of these files has anything to drop. So `call` and `launch` do their work in steps, and what a
//!   step needs of Rust's data it reaches by a pointer, without a guard.
//! - Functions that never jump (those that read a value, push one that needs no memory, or remove some) are called anywhere.
//! - No panic passes a frame of Lua: what may panic runs within `catch_unwind`.
//! - A function that Lua calls has room for `LUA_MINSTACK` values above its arguments, and takes no more.
//! - A pointer to bytes of a string is used only while the string is on the stack.

mod call;
mod launch;

use std::ffi::c_int;
use std::rc::Rc;
use std::slice;

use mlua::ffi::{self, lua_State};
use mlua::{Function, IntoLuaMulti, Lua, Result, Table, Value};

use crate::engine::state::State;

/// Upvalue of the functions that Lua calls: the address of the [`State`].
const STATE: c_int = ffi::lua_upvalueindex(1);

/// The function that runs a command. Arguments that are not words go to `refuse`; replies that are decoded elsewhere are taken by
/// `finish`, from the state.
pub(crate) fn call_function(
    lua: &Lua,
    state: &Rc<State>,
    refuse: Function,
    finish: Function,
) -> Result<Function> {
    // SAFETY: these are the upvalues that `call` uses.
    unsafe { closure(lua, call::call, state, (refuse, finish)) }
}

/// End of a script or function that was started.
pub(crate) enum Ended {
    /// The reply is in the state, encoded.
    Replied,
    /// A value was returned that is no plain one.
    Returned(Value),
    /// An error was raised; the handler has made this of it.
    Failed(Value),
}

/// Starts scripts and functions.
pub(crate) struct Launcher {
    /// Place in the registry of the function that Lua calls.
    reference: c_int,
    /// A table with what a script returns or ends with.
    slots: Table,
}

impl Launcher {
    /// A launcher of the functions in these tables, with the globals of scripts and the handler of errors.
    pub(crate) fn new(
        lua: &Lua,
        state: &Rc<State>,
        handler: &Function,
        (scripts, functions, globals): (&Table, &Table, &Table),
    ) -> Result<Launcher> {
        let [err, ok, double, map, set, big_number, verbatim] = launch::FIELD_NAMES;
        let fields = (err, ok, double, map, set, big_number, verbatim);
        let slots = lua.create_sequence_from([false, false, false])?;
        let upvalues = (handler, scripts, functions, globals, "KEYS", "ARGV", &slots);
        let mut upvalues = upvalues.into_lua_multi(lua)?;
        upvalues.extend(fields.into_lua_multi(lua)?);
        // SAFETY: these are the upvalues that `launch` uses, in its order.
        let function = unsafe { closure(lua, launch::launch, state, upvalues)? };
        // SAFETY: within a protected call, which `exec_raw` makes, the function is the whole stack; it is taken from there.
        let reference = unsafe {
            lua.exec_raw(function, |stack| {
                let reference = ffi::luaL_ref(stack, ffi::LUA_REGISTRYINDEX);
                ffi::lua_pushinteger(stack, reference.into());
            })?
        };
        Ok(Launcher { reference, slots })
    }

    /// Starts the script or function at a place. Its keys and arguments are in the state.
    ///
    /// # Errors
    /// If there is not enough memory for the keys and arguments.
    pub(crate) fn start(&self, lua: &Lua, place: usize, is_function: bool) -> Result<Ended> {
        let stack = lua.exec_raw_lua(|lua| lua.state());
        // SAFETY: no function of Lua is under way on this stack, which has room for `LUA_MINSTACK` values then. The protected call
        // leaves two results or a message, which are removed. Whatever jumps does so within it.
        let (is_ok, is_encoded) = unsafe {
            ffi::lua_rawgeti_(stack, ffi::LUA_REGISTRYINDEX, self.reference);
            ffi::lua_pushnumber(stack, place as f64);
            ffi::lua_pushboolean(stack, c_int::from(is_function));
            if ffi::lua_pcall(stack, 2, 2, 0) != ffi::LUA_OK {
                ffi::lua_settop(stack, -2);
                return Err(mlua::Error::MemoryError("not enough memory".to_owned()));
            }
            let flags = (
                ffi::lua_toboolean(stack, -2) != 0,
                ffi::lua_toboolean(stack, -1) != 0,
            );
            ffi::lua_settop(stack, -3);
            flags
        };
        if is_encoded {
            return Ok(Ended::Replied);
        }
        let value: Value = self.slots.raw_get(launch::OUT)?;
        self.slots.raw_set(launch::OUT, false)?;
        Ok(if is_ok {
            Ended::Returned(value)
        } else {
            Ended::Failed(value)
        })
    }
}

/// A function of these files, with the state and these values.
///
/// # Safety
/// The function is made for these upvalues.
unsafe fn closure(
    lua: &Lua,
    function: ffi::lua_CFunction,
    state: &Rc<State>,
    upvalues: impl IntoLuaMulti,
) -> Result<Function> {
    let state = Rc::as_ptr(state);
    // SAFETY: within a protected call, which `exec_raw` makes, the values are the whole stack; a function with them as upvalues takes
    // their place. The engine keeps the state for as long as its interpreter runs anything.
    unsafe {
        lua.exec_raw(upvalues, |stack| {
            ffi::lua_pushlightuserdata(stack, state.cast_mut().cast());
            ffi::lua_insert(stack, 1);
            ffi::lua_pushcclosure(stack, function, ffi::lua_gettop(stack));
        })
    }
}

/// The state of the engine whose function Lua has called.
///
/// # Safety
/// The function has been made by [`closure`].
unsafe fn state_of<'s>(stack: *mut lua_State) -> &'s State {
    // SAFETY: the upvalue is the address of a state that lives as long as the interpreter runs anything.
    unsafe { &*ffi::lua_touserdata(stack, STATE).cast::<State>() }
}

/// The bytes of a string on the stack.
///
/// # Safety
/// The value at `index` is a string, and stays on the stack while its bytes are used.
unsafe fn text<'s>(stack: *mut lua_State, index: c_int) -> &'s [u8] {
    let mut len = 0;
    // SAFETY: of a string, Lua returns the bytes and their number, never null; that neither allocates nor jumps.
    unsafe { slice::from_raw_parts(ffi::lua_tolstring(stack, index, &raw mut len).cast(), len) }
}

/// Pushes a string.
///
/// # Safety
/// `stack` is valid and has room; no frame up to the next protected call has anything to drop.
unsafe fn push_bytes(stack: *mut lua_State, bytes: &[u8]) {
    // SAFETY: as the caller has promised; Lua copies the bytes.
    unsafe { ffi::lua_pushlstring_(stack, bytes.as_ptr().cast(), bytes.len()) }
}
