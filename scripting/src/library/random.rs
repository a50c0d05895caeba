//! [`Random`]: the generator of `math.random`, the 48 bits of `drand48`.

use std::cell::Cell;

use mlua::{Lua, MultiValue, Result, Value};

use crate::library::arguments::Given;

/// State of a generator. Two engines with the same state give the same numbers.
#[derive(Debug)]
pub(crate) struct Random(Cell<u64>);

/// State in which a server of Redis begins.
pub(crate) const INITIAL_STATE: u64 = 0x1234_ABCD_330E;

/// The low bits of a state that is set by a seed.
const SEED_LOW: u64 = 0x330E;

const MASK: u64 = (1 << 48) - 1;

/// Results are below this: 31 bits.
const RANGE: u32 = 0x7FFF_FFFF;

impl Random {
    /// A generator in this state.
    pub(crate) fn new(state: u64) -> Random {
        Random(Cell::new(state & MASK))
    }

    /// The state.
    pub(crate) fn state(&self) -> u64 {
        self.0.get()
    }

    /// Continues from another state.
    pub(crate) fn set_state(&self, state: u64) {
        self.0.set(state & MASK);
    }

    fn seed(&self, seed: i32) {
        self.0.set((u64::from(seed as u32) << 16) | SEED_LOW);
    }

    /// The next 31 bits.
    fn next(&self) -> u32 {
        let state = self.0.get().wrapping_mul(0x5_DEEC_E66D).wrapping_add(0xB) & MASK;
        self.0.set(state);
        (state >> 17) as u32
    }

    /// `math.random`: a fraction, an integer up to a bound, or one between two bounds.
    pub(crate) fn random(&self, lua: &Lua, values: MultiValue) -> Result<Value> {
        let fraction = f64::from(self.next() % RANGE) / f64::from(RANGE);
        let given = Given::new(lua, "random", values);
        let (low, high, last) = match given.len() {
            0 => return Ok(Value::Number(fraction)),
            1 => (1, given.int(0)?, 0),
            2 => (given.int(0)?, given.int(1)?, 1),
            _ => return Err(crate::error::located(lua, "wrong number of arguments")),
        };
        if low > high {
            return Err(given.error(last, "interval is empty"));
        }
        // The width is computed in 32 bits by the reference, and wraps there.
        let width = high.wrapping_sub(low).wrapping_add(1);
        let width = if last == 0 {
            f64::from(high)
        } else {
            f64::from(width)
        };
        Ok(Value::Number((fraction * width).floor() + f64::from(low)))
    }

    /// `math.randomseed`.
    pub(crate) fn random_seed(&self, lua: &Lua, values: MultiValue) -> Result<()> {
        self.seed(Given::new(lua, "randomseed", values).int(0)?);
        Ok(())
    }
}
