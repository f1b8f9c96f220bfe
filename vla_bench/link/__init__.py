"""The policy link: a policy in one process or machine, the harness in another, over a websocket.

The wire is openpi's, so that its servers and clients work with ours: msgpack maps in binary frames, metadata from the
server on connect, one observation a message, one answer with `actions` and `server_timing` back, errors as text.
Source: Physical-Intelligence/openpi at 15a9616, `src/openpi/serving/websocket_policy_server.py` and
`packages/openpi-client/src/openpi_client/websocket_client_policy.py`; written anew.

What openpi has no word for travels under the key `vla_bench`: in the metadata what is served (`Offer`), from the client
the start of an episode (task and seed), in the answer what the query cost. A peer that does not know the key is served
without. `wire` packs and unpacks, `messages` says what is inside, `dialects` what other projects call the entries of an
observation; `server`, `session` and `seats` serve, `secret` reads the token, `command` is `vla-bench serve`. The client
is the policy `remote`.
"""
