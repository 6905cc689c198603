-- What the public port changes about requests and answers, around the JSON transcoder.
--
-- Theory of operation. A request comes here before the transcoder, an answer after it. A request is native gRPC, by
-- gRPC-Web too, and hardly touched; or it is HTTP and becomes a gRPC call. Then everything in it that gRPC could not
-- carry, or that would be taken for the platform's own, is dropped or refused here: behind the transcoder it would fail
-- the whole call. What is below a function's ref, and its query, is the function's: the transcoder gets to see neither,
-- the service reads them from headers. Services choose the HTTP status of a transcoded answer with the header
-- x-cs-http-status, because gRPC has no other place for it.

local WEB = "/v1/web/"
local STATE = "cs"
local GRPC_INTERNALS = {
  "grpc-status",
  "grpc-message",
  "grpc-status-details-bin",
  "grpc-encoding",
  "grpc-accept-encoding",
}
-- One character of UTF-8 after the other, as proto3 wants its strings: neither overlong nor a surrogate.
local UTF8 = {
  "^[\001-\127]+",
  "^%z+",
  "^[\194-\223][\128-\191]",
  "^\224[\160-\191][\128-\191]",
  "^[\225-\236\238\239][\128-\191][\128-\191]",
  "^\237[\128-\159][\128-\191]",
  "^\240[\144-\191][\128-\191][\128-\191]",
  "^[\241-\243][\128-\191][\128-\191][\128-\191]",
  "^\244[\128-\143][\128-\191][\128-\191]",
}

local function starts_with(text, prefix)
  return text ~= nil and text:sub(1, #prefix) == prefix
end

local function decoded(text)
  return (text:gsub("%%(%x%x)", function(digits)
    return string.char(tonumber(digits, 16))
  end))
end

local function is_utf8(text)
  local position = 1
  while position <= #text do
    local last
    for _, pattern in ipairs(UTF8) do
      last = select(2, text:find(pattern, position))
      if last ~= nil then
        break
      end
    end
    if last == nil then
      return false
    end
    position = last + 1
  end
  return true
end

-- By the proxy's own rule, to the letter: the transcoder goes by it, and what one takes for gRPC and the other for HTTP
-- would pass by all that is done for either. Two headers, joined by a comma, are one such case.
local function is_grpc(content_type)
  return content_type == "application/grpc" or starts_with(content_type, "application/grpc+")
end

-- local_reply_config makes JSON of it, as of all that the proxy refuses.
local function refuse(handle, message)
  handle:respond({ [":status"] = "400", ["content-type"] = "text/plain" }, message)
end

-- Headers that only we and the proxy may set, and, on HTTP, those that mean something to gRPC alone: it would decode a
-- `-bin` header as base64, and refuse a name with other characters than its own.
local function must_not_pass(name, http)
  if starts_with(name, "x-cs-") or (starts_with(name, "x-envoy-") and name ~= "x-envoy-external-address") then
    return true
  end
  return http and not starts_with(name, ":")
    and (starts_with(name, "grpc-") or name:sub(-4) == "-bin" or name:find("[^%w_.-]") ~= nil)
end

local function drop_headers(headers, http)
  local dropped = {}
  for name, _ in pairs(headers) do
    if must_not_pass(name, http) then
      dropped[#dropped + 1] = name
    end
  end
  for _, name in ipairs(dropped) do
    headers:remove(name)
  end
end

-- A request id of ours is req_ and a ULID; any other would spoil logs, so the service makes one.
local function check_request_id(headers)
  local id = headers:get("x-request-id")
  if id ~= nil and not (#id == 30 and id:match("^req_[0-7][0-9A-HJKMNP-TV-Z]+$")) then
    headers:remove("x-request-id")
  end
end

-- The address that the proxy trusts, alone: functions take the first of a list for the caller's, and that one is only
-- claimed.
local function set_address(headers)
  local address = headers:get("x-envoy-external-address")
  if address ~= nil then
    headers:replace("x-forwarded-for", address)
  end
end

local function drop_internals(headers)
  for _, name in ipairs(GRPC_INTERNALS) do
    headers:remove(name)
  end
end

local function split_query(path)
  local mark = path:find("?", 1, true)
  if mark == nil then
    return path, nil
  end
  return path:sub(1, mark - 1), path:sub(mark + 1)
end

-- The position after the ref of /v1/web/{tenant}/{namespace}/{function}/{ref}/..., or nil when the path ends before.
local function rest_of(path)
  local position = #WEB
  for _ = 1, 4 do
    position = path:find("/", position + 1, true)
    if position == nil then
      return nil
    end
  end
  return position
end

-- Query and path below the ref are the function's, byte for byte. The transcoder would bind parameters to fields of the
-- request, decode the path, and take a `:word` at its end for a custom verb, so it gets to see neither.
local function set_apart(handle, headers, path)
  local plain, query = split_query(path)
  if query ~= nil then
    headers:add("x-cs-raw-query", query)
  end
  headers:add("x-cs-raw-path", plain)
  headers:add("x-cs-protocol", handle:streamInfo():protocol())
  headers:add("x-cs-authority", headers:get(":authority") or "")
  local rest = rest_of(plain)
  return rest == nil and plain or plain:sub(1, rest - 1)
end

-- The fields that paths bind, by name; the route's metadata holds them.
local function path_fields(handle)
  local fields = {}
  for _, name in ipairs(handle:metadata():get("path_fields") or {}) do
    fields[name] = true
  end
  return fields
end

-- The transcoder lets a parameter override the field that a path binds, also by the field's JSON name and with letters
-- of the name encoded. So those that name such a field, however they spell it, are left out. Where the body or the path
-- alone is the request, no other parameter is known either: then the answer is nil.
local function without_path_fields(handle, headers, path)
  local plain, query = split_query(path)
  if query == nil then
    return path
  end
  local fields, kept = path_fields(handle), {}
  for parameter in query:gmatch("[^&]+") do
    local name = decoded((parameter:match("^[^=]*"):gsub("+", " ")))
    local snake = name:gsub("%u", function(letter)
      return "_" .. letter:lower()
    end)
    if not fields[snake:match("^[^.]*")] then
      kept[#kept + 1] = parameter
    end
  end
  if #kept == 0 then
    return plain
  end
  if headers:get(":method") ~= "GET" then
    return nil
  end
  return plain .. "?" .. table.concat(kept, "&")
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local http = not is_grpc(headers:get("content-type"))
  drop_headers(headers, http)
  check_request_id(headers)
  set_address(headers)
  -- Routes look at what was changed here, and by the filter for gRPC-Web.
  handle:clearRouteCache()
  if not http then
    return
  end
  -- Routes, and the proxy's own answers, are chosen by it: the transcoder makes every content-type one of gRPC.
  headers:add("x-cs-transcoded", "1")
  local state = handle:streamInfo():dynamicMetadata()
  state:set(STATE, "transcoded", true)
  state:set(STATE, "head", headers:get(":method") == "HEAD")
  local path = headers:get(":path")
  if path == nil then
    return refuse(handle, "the public port is no proxy to other hosts")
  end
  if starts_with(path, WEB) then
    path = set_apart(handle, headers, path)
  else
    path = without_path_fields(handle, headers, path)
    if path == nil then
      return refuse(handle, "this call takes no query parameters")
    end
  end
  if not is_utf8(decoded(path)) then
    return refuse(handle, "path and query must be UTF-8")
  end
  headers:replace(":path", path)
end

-- Answers to HEAD, and of these statuses, have no body. One that came all the same would be read as the next answer, or
-- fail the stream.
local function drop_body(handle, is_head)
  local body = handle:body()
  -- The script has slept until the body was there; what it held before has no meaning any more.
  local headers = handle:headers()
  local length = body == nil and 0 or body:length()
  if length > 0 then
    body:setBytes("")
  end
  if is_head and length > 0 then
    headers:replace("content-length", tostring(length))
  elseif not is_head then
    headers:remove("content-length")
    headers:remove("content-type")
  end
end

local function finish_transcoded(handle, headers, status, is_head)
  drop_internals(headers)
  if status ~= nil and status:find("^[2-5]%d%d$") then
    headers:replace(":status", status)
  end
  local bodiless = status == "204" or status == "304"
  if is_head or bodiless then
    drop_body(handle, is_head and not bodiless)
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local status = headers:get("x-cs-http-status")
  headers:remove("x-cs-http-status")
  local state = handle:streamInfo():dynamicMetadata():get(STATE)
  local transcoded = state ~= nil and state["transcoded"]
  if transcoded then
    finish_transcoded(handle, headers, status, state["head"])
  end
  local trailers = handle:trailers()
  if trailers == nil then
    return
  end
  trailers:remove("x-cs-http-status")
  if transcoded then
    drop_internals(trailers)
  end
end
