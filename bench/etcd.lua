-- Compare-and-swap on etcd through its JSON gateway: a key's value is set if the key is as it was last seen to be; with a
-- PATH that ends in `range`, a key is read. `wrk -s etcd.lua URL -- METHOD PATH KEYS`; what is reported is the swaps that
-- were done, not those that came too late, and the reads.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
   thread:set("number", #threads)
end

-- etcd's keys and values are base64.
local letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local function base64(text)
   local encoded = text:gsub("..?.?", function(part)
      local a, b, c = part:byte(1, 3)
      local bits = a * 65536 + (b or 0) * 256 + (c or 0)
      local out = ""
      for place = 3, 0, -1 do
         local index = math.floor(bits / 64 ^ place) % 64
         out = out .. letters:sub(index + 1, index + 1)
      end
      return out:sub(1, #part + 1) .. string.rep("=", 3 - #part)
   end)
   return encoded
end

function init(args)
   keys = tonumber(args[3])
   reads = args[2]:sub(-5) == "range"
   accepted, sent = 0, 0
   math.randomseed(os.time() * 8 + number)
   seen, names = {}, {}
   -- With several keys each thread has its own; a single one is everybody's.
   for key = 1, keys do names[key] = base64(keys == 1 and "hot" or "k" .. number .. "-" .. key) end
end

function request()
   sent = sent + 1
   local key = names[math.random(keys)]
   if reads then return wrk.format("POST", "/v3/kv/range", nil, '{"key": "' .. key .. '"}') end
   local body = string.format(
      '{"compare": [{"key": "%s", "target": "MOD", "result": "EQUAL", "mod_revision": "%s"}],'
         .. ' "success": [{"request_put": {"key": "%s", "value": "%s", "prev_kv": true}}],'
         .. ' "failure": [{"request_range": {"key": "%s"}}]}',
      key, seen[key] or "0", key, base64(string.format("%09d", sent)), key
   )
   return wrk.format("POST", "/v3/kv/txn", {["Content-Type"] = "application/json"}, body)
end

-- The answer names the key and its revision: the new one is the store's, another's is the key's own.
function response(status, headers, body)
   if reads then accepted = accepted + 1 return end
   local key = body:match('"key":"([^"]+)"')
   local is_done = body:find('"succeeded":true', 1, true)
   if is_done then accepted = accepted + 1 end
   if key then seen[key] = body:match(is_done and '"revision":"(%d+)"' or '"mod_revision":"(%d+)"') end
end

function done(summary, latency, requests)
   local failed, swapped = summary.errors, 0
   for _, thread in ipairs(threads) do swapped = swapped + thread:get("accepted") end
   io.write(string.format(
      '\nREPORT {"requests": %d, "seconds": %.6f, "p50": %d, "p99": %d, "refused": %d, "broken": %d, "accepted": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
      failed.status, failed.connect + failed.read + failed.write + failed.timeout, swapped
   ))
end
