-- The world of scripts: which globals they see, and how those are kept from being changed.
--
-- Lua 5.1 knows no read-only table. So a table that all scripts share is reached through an empty one, its *face*, whose metatable
-- looks fields up and refuses to set them. A face stays empty, because each function that would go round its metatable is replaced
-- here by one that knows faces. The table behind a face is never given to a script.
--
-- This chunk runs once, when an engine starts. It gets the functions of Lua and those of the engine, and returns what the engine
-- calls. Its own functions raise errors at level 2, the line of the script, and its name marks frames that errors do not show.

local lua, native, options = ...

local error, next, rawget, rawset, select, type = lua.error, lua.next, lua.rawget, lua.rawset, lua.select, lua.type
local setmetatable, getmetatable, unpack = lua.setmetatable, lua.getmetatable, lua.unpack
local pcall, xpcall, tostring, floor = lua.pcall, lua.xpcall, lua.tostring, lua.math.floor
local fmod, tonumber, INTEGER = lua.math.fmod, lua.tonumber, 2147483648
local insert, concat, sub = lua.table.insert, lua.table.concat, lua.string.sub
local caught = native.caught

local READ_ONLY = "Attempt to modify a readonly table"

-- The table behind each face.
local behind = {}

local function refuse()
  error(READ_ONLY, 2)
end

local function face_of(real)
  local face = {}
  local metatable = { __index = real, __newindex = refuse, __metatable = false }
  behind[face] = real
  setmetatable(face, metatable)
  native.add_face(face, real)
  return face, metatable
end

local function missing(_, name)
  error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
end

local function require_table(value, position, name)
  if type(value) ~= "table" then
    error("bad argument #" .. position .. " to '" .. name .. "' (table expected, got "
      .. type(value) .. ")", 3)
  end
end

-- A bound of unpack: an integer, towards zero.
local function bound(value, default, position)
  if value == nil then
    return default
  end
  local number = tonumber(value)
  if type(value) ~= "number" and type(value) ~= "string" or not number then
    error("bad argument #" .. position .. " to 'unpack' (number expected, got " .. type(value) .. ")", 3)
  end
  return number - fmod(number, 1)
end

-- Base functions ------------------------------------------------------------------------------------------------------------

local base = {}

for _, name in lua.ipairs { "assert", "error", "ipairs", "rawequal", "select", "tonumber", "tostring", "type", "_VERSION" } do
  base[name] = lua[name]
end

function base.next(t, key)
  require_table(t, 1, "next")
  return next(behind[t] or t, key)
end

function base.pairs(t)
  if type(t) ~= "table" then
    error("bad argument #1 to 'pairs' (table expected, got " .. type(t) .. ")", 2)
  end
  if behind[t] then
    return base.next, t, nil
  end
  return next, t, nil
end

function base.rawget(t, key)
  require_table(t, 1, "rawget")
  return rawget(behind[t] or t, key)
end

function base.rawset(t, key, value)
  require_table(t, 1, "rawset")
  if behind[t] then
    error(READ_ONLY, 0)
  end
  return rawset(t, key, value)
end

function base.setmetatable(t, metatable)
  require_table(t, 1, "setmetatable")
  if behind[t] then
    error(READ_ONLY, 0)
  end
  if metatable ~= nil and type(metatable) ~= "table" then
    error("bad argument #2 to 'setmetatable' (nil or table expected)", 2)
  end
  local old = getmetatable(t)
  if old and type(old) ~= "table" or old and rawget(native.metatable(t), "__metatable") ~= nil then
    error("cannot change a protected metatable", 2)
  end
  return setmetatable(t, metatable)
end

-- Arithmetic on the bounds happens here, in floating point: with integers it can overflow.
function base.unpack(t, first, last)
  require_table(t, 1, "unpack")
  if first == nil and last == nil and #t < options.unpacked_max then
    return unpack(t)
  end
  local from, to = bound(first, 1, 2), bound(last, #t, 3)
  if to < from then
    return
  end
  if from < -INTEGER or to >= INTEGER or to - from >= options.unpacked_max then
    error("too many results to unpack", 2)
  end
  return unpack(t, from, to)
end

-- What an error is once it has been caught. A script that was stopped from outside is stopped again.
local function settled(ok, ...)
  if ok then
    return true, ...
  end
  return false, caught((...), true)
end

function base.pcall(...)
  return settled(pcall(...))
end

local function settled_by_handler(ok, ...)
  if ok then
    return true, ...
  end
  return false, caught((...), false)
end

function base.xpcall(f, handler)
  return settled_by_handler(xpcall(f, function(err)
    return handler(caught(err, false))
  end))
end

function base.load(reader, name)
  if type(reader) ~= "function" then
    error("bad argument #1 to 'load' (function expected, got " .. (reader == nil and "no value" or type(reader)) .. ")", 2)
  end
  local pieces = {}
  while true do
    local piece = reader()
    if piece == nil or piece == "" then
      break
    end
    if type(piece) ~= "string" then
      error("reader function must return a string", 2)
    end
    pieces[#pieces + 1] = piece
  end
  return native.compile(concat(pieces), name == nil and "=(load)" or name)
end

function base.loadstring(source, name)
  if type(source) ~= "string" and type(source) ~= "number" then
    error("bad argument #1 to 'loadstring' (string expected, got "
      .. (source == nil and "no value" or type(source)) .. ")", 2)
  end
  source = tostring(source)
  return native.compile(source, name == nil and source or name)
end

-- The settings of the collector belong to all scripts, so what a script sets holds until it ends.
function base.collectgarbage(what, value)
  return native.collect(what == nil and "collect" or what, value == nil and 0 or value)
end

function base.gcinfo()
  return floor(native.collect("count", 0))
end

-- Libraries -----------------------------------------------------------------------------------------------------------------

local function copy(from, names)
  local to = {}
  for _, name in lua.ipairs(names) do
    to[name] = from[name]
  end
  return to
end

local tables = copy(lua.table, { "foreachi", "getn", "maxn", "remove", "setn" })

-- Sorting takes quadratic time at worst, and the interpreter does not count what C does. So it counts the comparisons of a large
-- table, which are done here.
local sort = lua.table.sort

local function less(a, b)
  return a < b
end

local function sorted(ok, err)
  if not ok then
    error(caught(err, false), 0)
  end
end

function tables.sort(t, compare)
  require_table(t, 1, "sort")
  if compare ~= nil and type(compare) ~= "function" then
    error("bad argument #2 to 'sort' (function expected, got " .. type(compare) .. ")", 2)
  end
  if compare or #t <= options.uncounted_max then
    return sort(t, compare)
  end
  sorted(pcall(sort, t, less))
end

function tables.concat(t, ...)
  require_table(t, 1, "concat")
  if #t > options.uncounted_max then
    native.count(#t)
  end
  return lua.table.concat(t, ...)
end

function tables.insert(t, ...)
  require_table(t, 1, "insert")
  if behind[t] then
    error(READ_ONLY, 0)
  end
  local count = select("#", ...)
  if count == 1 then
    return insert(t, (...))
  end
  if count ~= 2 then
    error("wrong number of arguments to 'insert'", 2)
  end
  local position = tonumber((...))
  if position and not (#t - position < options.shift_max and position < 2147483648) then
    error("bad argument #2 to 'insert' (position out of bounds)", 2)
  end
  return insert(t, ...)
end

function tables.foreach(t, f)
  require_table(t, 1, "foreach")
  return lua.table.foreach(behind[t] or t, f)
end

local strings = copy(lua.string, { "byte", "char", "format", "gfind", "len", "lower", "reverse", "sub", "upper" })
strings.find, strings.match, strings.rep, strings.gmatch = native.find, native.match, native.rep, native.gmatch

-- `string.gmatch` checks its arguments and calls this.
native.set_iterator(function(s, pattern)
  local at = 1
  local function step(following, ...)
    at = following
    return ...
  end
  return function()
    if at then
      return step(native.following(s, pattern, at))
    end
  end
end)

-- What replaces a match: false keeps it.
local function replacement(repl, kind, whole, ...)
  local value
  if kind == "table" then
    value = repl[select("#", ...) > 0 and (...) or whole]
  elseif select("#", ...) > 0 then
    value = repl(...)
  else
    value = repl(whole)
  end
  if not value then
    return whole
  end
  if type(value) ~= "string" and type(value) ~= "number" then
    error("invalid replacement value (a " .. type(value) .. ")", 5)
  end
  return value
end

local function substitute(s, pattern, repl, max)
  local kind, out, count, at = type(repl), {}, 0, 1
  local anchored = sub(pattern, 1, 1) == "^"
  local first, last
  local function replaced(from, to, ...)
    first, last = from, to
    if from then
      return replacement(repl, kind, sub(s, from, to), ...)
    end
  end
  while count < max do
    local value = replaced(native.scan(s, pattern, at))
    if not first then
      break
    end
    count = count + 1
    out[#out + 1] = sub(s, at, first - 1)
    out[#out + 1] = value
    if last >= first then
      at = last + 1
    else
      out[#out + 1] = sub(s, first, first)
      at = first + 1
    end
    if anchored or at > #s + 1 then
      break
    end
  end
  out[#out + 1] = sub(s, at)
  return concat(out), count
end

function strings.gsub(s, pattern, repl, ...)
  local kind = type(repl)
  if kind == "table" or kind == "function" then
    local max = native.check_gsub(s, pattern, ...)
    return substitute(tostring(s), tostring(pattern), repl, max)
  end
  return native.gsub(s, pattern, repl, ...)
end

local mathematics = copy(lua.math, {
  "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod", "frexp", "huge", "ldexp", "log",
  "log10", "max", "min", "mod", "modf", "pi", "pow", "rad", "sin", "sinh", "sqrt", "tan", "tanh",
})
mathematics.random, mathematics.randomseed = native.random, native.randomseed

local coroutines = copy(lua.coroutine, { "create", "running", "status", "wrap", "yield" })
local resume = lua.coroutine.resume

local function resumed(ok, ...)
  if ok then
    return true, ...
  end
  return false, caught((...), false)
end

function coroutines.resume(co, ...)
  if type(co) ~= "thread" then
    error("bad argument #1 to 'resume' (coroutine expected)", 2)
  end
  return resumed(resume(co, ...))
end

-- The interface of the server -------------------------------------------------------------------------------------------------

local api = native.api

-- The globals -----------------------------------------------------------------------------------------------------------------

local function world(api_face)
  local globals = {}
  for name, value in next, base do
    globals[name] = value
  end
  globals.redis, globals.server = api_face, api_face
  return globals
end

for name, library in next, {
  string = strings, table = tables, math = mathematics, coroutine = coroutines, os = { clock = native.clock },
  cjson = native.cjson, cmsgpack = native.cmsgpack, bit = native.bit, struct = native.struct,
} do
  base[name] = face_of(library)
end

local string_metatable = getmetatable("")
string_metatable.__index = strings
string_metatable.__metatable = false
local string_metatable_face = face_of { __index = base.string }

local api_face = face_of(api)
local metatables = {}

local function environment_of(globals)
  setmetatable(globals, { __index = missing })
  local face, metatable = face_of(globals)
  globals._G = face
  metatables[face] = face_of { __index = missing }
  return face, metatable
end

function base.getmetatable(...)
  if select("#", ...) == 0 then
    error("bad argument #1 to 'getmetatable' (value expected)", 2)
  end
  local value = (...)
  if type(value) == "string" then
    return string_metatable_face
  end
  if value ~= nil and behind[value] then
    return metatables[value]
  end
  return getmetatable(value)
end

local script_globals, function_globals = world(api_face), world(api_face)
function_globals.redis, function_globals.server = nil, nil
local load_api = copy(api, {
  "log", "LOG_DEBUG", "LOG_VERBOSE", "LOG_NOTICE", "LOG_WARNING", "REDIS_VERSION", "REDIS_VERSION_NUM", "SERVER_NAME",
  "SERVER_VERSION", "SERVER_VERSION_NUM",
})
load_api.register_function = native.register_function
setmetatable(load_api, { __index = missing })
local load_api_face = face_of(load_api)
local function_api = {}
for name, value in next, api do
  if name ~= "replicate_commands" and name ~= "breakpoint" and name ~= "debug" then
    function_api[name] = value
  end
end
local function_api_face = face_of(function_api)

local script_environment = environment_of(script_globals)
local function_environment, function_metatable = environment_of(function_globals)

-- While a library is loaded it sees nothing but the interface by which it registers functions.
local load_globals = {}
setmetatable(load_globals, { __index = missing })
load_globals.redis, load_globals.server = load_api_face, load_api_face
function_globals.redis, function_globals.server = function_api_face, function_api_face

-- What the engine calls -------------------------------------------------------------------------------------------------------

local scripts, functions = {}, {}
local handler = native.handler

local function loaded(...)
  function_metatable.__index = function_globals
  behind[function_environment] = function_globals
  return ...
end

local function load_library(chunk)
  function_metatable.__index = load_globals
  behind[function_environment] = load_globals
  return loaded(xpcall(chunk, handler))
end

return {
  script_environment = script_environment,
  function_environment = function_environment,
  script_globals = script_globals,
  scripts = scripts,
  functions = functions,
  handler = handler,
  load_library = load_library,
}
