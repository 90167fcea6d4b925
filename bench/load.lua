-- What wrk sends, and how it reports: `wrk -s load.lua URL -- METHOD PATH CHARTS [BODY]`.
-- In PATH, {chart} is a number from 1 to CHARTS, at random, and {machine} one that was never sent before.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
   thread:set("number", #threads)
end

function init(args)
   method, path, charts = args[1], args[2], tonumber(args[3])
   sent = 0
   math.randomseed(os.time() * 8 + number)
   for _ = 1, 20 do math.random() end
   born = string.format("%x-%d", os.time(), math.random(2 ^ 30))
   fixed = not path:find("{", 1, true) and wrk.format(method, path, nil, args[4])
end

function request()
   if fixed then return fixed end
   sent = sent + 1
   local chart = string.format("%d", math.random(charts))
   local machine = string.format("%s-%d-%d", born, number, sent)
   local made = path:gsub("{chart}", chart):gsub("{machine}", machine)
   return wrk.format(method, made)
end

function done(summary, latency, requests)
   local failed = summary.errors
   io.write(string.format(
      '\nREPORT {"requests": %d, "seconds": %.6f, "p50": %d, "p99": %d, "refused": %d, "broken": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
      failed.status, failed.connect + failed.read + failed.write + failed.timeout
   ))
end
