-- What the public port changes about requests and answers, around the JSON transcoder.
--
-- A request comes here before the transcoder, an answer after it. Services choose the HTTP status of a transcoded answer
-- with the header x-cs-http-status, because gRPC has no other place for it.

local WEB = "/v1/web/"
local RULES = "cs"

local function starts_with(text, prefix)
  return text ~= nil and text:sub(1, #prefix) == prefix
end

-- Headers that only we and the proxy may set.
local function drop_inside_headers(headers)
  local dropped = {}
  for name, _ in pairs(headers) do
    if starts_with(name, "x-cs-") or (starts_with(name, "x-envoy-") and name ~= "x-envoy-external-address") then
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
  local mark = path:find("?", 1, true)
  local plain = path
  if mark ~= nil then
    plain = path:sub(1, mark - 1)
    headers:add("x-cs-raw-query", path:sub(mark + 1))
  end
  headers:add("x-cs-raw-path", plain)
  headers:add("x-cs-protocol", handle:streamInfo():protocol())
  local rest = rest_of(plain)
  if rest ~= nil then
    plain = plain:sub(1, rest - 1)
  end
  headers:replace(":path", plain)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  drop_inside_headers(headers)
  check_request_id(headers)
  if starts_with(headers:get("content-type"), "application/grpc") then
    return
  end
  handle:streamInfo():dynamicMetadata():set(RULES, "transcoded", true)
  -- The proxy's own answers are told apart by it: the transcoder makes every content-type one of gRPC.
  headers:add("x-cs-transcoded", "1")
  local path = headers:get(":path")
  if starts_with(path, WEB) then
    set_apart(handle, headers, path)
  elseif headers:get(":method") ~= "GET" then
    -- The body, or the path alone, is the request: a parameter could only override what they say.
    local mark = path:find("?", 1, true)
    if mark ~= nil then
      headers:replace(":path", path:sub(1, mark - 1))
    end
  end
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local status = headers:get("x-cs-http-status")
  headers:remove("x-cs-http-status")
  local rules = handle:streamInfo():dynamicMetadata():get(RULES)
  if rules == nil or not rules["transcoded"] then
    return
  end
  headers:remove("grpc-status")
  headers:remove("grpc-message")
  headers:remove("grpc-status-details-bin")
  headers:remove("grpc-accept-encoding")
  if status ~= nil then
    headers:replace(":status", status)
    if status == "204" or status == "304" then
      headers:remove("content-length")
      headers:remove("content-type")
    end
  end
end
