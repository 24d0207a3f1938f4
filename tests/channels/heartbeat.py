"""A heartbeat of phoenix.js, and its reply."""

BEAT = '[null,"7","phoenix","heartbeat",{}]'
BEATEN = '[null,"7","phoenix","phx_reply",{"status":"ok","response":{}}]'
