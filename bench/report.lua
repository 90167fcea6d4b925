-- What the scripts for wrk share: each thread has a `number`, from 1 on, and a line at the end reports what was measured.

local threads = 0

function setup(thread)
   threads = threads + 1
   thread:set("number", threads)
end

function done(summary, latency, requests)
   local failed = summary.errors
   io.write(string.format(
      '\nREPORT {"requests": %d, "seconds": %.6f, "p50": %d, "p99": %d, "refused": %d, "broken": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
      failed.status, failed.connect + failed.read + failed.write + failed.timeout
   ))
end
