-- What wrk sends, and how it reports: `wrk -s load.lua URL -- METHOD PATH CHARTS [BODY]`.
-- In PATH, {chart} is a number from 1 to CHARTS, at random, and {machine} one that was never sent before.

dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "report.lua")

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
