-- Claims for one machine after another: `wrk -s claims.lua URL -- METHOD PATH MACHINES`.
-- Each of the two threads has half of the MACHINES, and begins again when it has claimed for all of them.
-- It reports as load.lua does.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
   thread:set("number", #threads)
end

function init(args)
   method, path, share = args[1], args[2], math.floor(tonumber(args[3]) / 2)
   sent = 0
end

function request()
   local machine = (number - 1) * share + sent % share + 1
   sent = sent + 1
   return wrk.format(method, path .. string.format("%d", machine))
end

function done(summary, latency, requests)
   local failed = summary.errors
   io.write(string.format(
      '\nREPORT {"requests": %d, "seconds": %.6f, "p50": %d, "p99": %d, "refused": %d, "broken": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
      failed.status, failed.connect + failed.read + failed.write + failed.timeout
   ))
end
