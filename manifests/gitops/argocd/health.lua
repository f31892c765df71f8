-- Health of a SquidexClient for Argo CD: docs/guides/gitops.md says how to install it.
-- The same as kstatus and ../flux/shop.yaml say: well with a token that can be used, degraded when waiting will not bring one.
local health = {status = "Progressing", message = "The operator has not looked at this spec yet"}
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return health
end

local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function is_true(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

if is_true("Stalled") then
  health.status = "Degraded"
  health.message = conditions.Stalled.reason .. ": " .. conditions.Stalled.message
elseif is_true("Ready") then
  health.status = "Healthy"
  health.message = conditions.Ready.message
  if is_true("RefreshFailing") then
    -- Pods work; there is time until the token expires.
    local failing = conditions.RefreshFailing
    health.message = health.message .. " The next one cannot be had: " .. failing.reason .. ": " .. failing.message
  end
elseif conditions.Ready ~= nil then
  health.message = conditions.Ready.reason .. ": " .. conditions.Ready.message
end
return health
