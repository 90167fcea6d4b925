-- Claims for one machine after another: `wrk -s claims.lua URL -- METHOD PATH MACHINES`.
-- Each of the two threads has half of the MACHINES, and begins again when it has claimed for all of them.

dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "report.lua")

function init(args)
   method, path, share = args[1], args[2], math.floor(tonumber(args[3]) / 2)
   sent = 0
end

function request()
   local machine = (number - 1) * share + sent % share + 1
   sent = sent + 1
   return wrk.format(method, path .. string.format("%d", machine))
end
