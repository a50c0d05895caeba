//! Libraries that scripts call: own writing behind functions of Lua, byte by byte as in Redis.
//!
//! | module | functions |
//! |---|---|
//! | `bit` | `bit.*` |
//! | `json`, `json_encode`, `json_decode` | `cjson.*` |
//! | `msgpack` | `cmsgpack.*` |
//! | `pattern`, `strings` | `string.find`, `match`, `gmatch`, `gsub`, `rep`: those of Lua cannot be stopped, and recurse freely |
//! | `random` | `math.random`, `math.randomseed` |
//! | `structs` | `struct.*` |
//! | `build` | tables from encoded values, without recursion |
//! | `arguments` | arguments as functions written in C check them |

use std::rc::Rc;

use mlua::{Lua, MultiValue, Result, Table};

use crate::engine::state::State;
use crate::library::arguments::Given;

pub(crate) mod arguments;
pub(crate) mod bit;
pub(crate) mod build;
pub(crate) mod json;
pub(crate) mod json_decode;
pub(crate) mod json_encode;
pub(crate) mod msgpack;
pub(crate) mod pattern;
pub(crate) mod random;
pub(crate) mod strings;
pub(crate) mod structs;

/// A function of a library.
pub(crate) type Function = fn(&State, Given<'_>) -> Result<MultiValue>;

/// Adds functions to a table: each with its key, and the name that errors about its arguments tell.
pub(crate) fn add_functions(
    lua: &Lua,
    table: &Table,
    state: &Rc<State>,
    functions: &[(&str, &'static str, Function)],
) -> Result<()> {
    for &(key, name, function) in functions {
        let state = Rc::clone(state);
        let callback = lua.create_function(move |lua, values: MultiValue| {
            function(&state, Given::new(lua, name, values))
        })?;
        table.raw_set(key, callback)?;
    }
    Ok(())
}
