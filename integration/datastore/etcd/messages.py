"""The messages of etcd's v3 API that we use. Numbers and types are those of etcd's rpc.proto, kv.proto and auth.proto."""

from __future__ import annotations

from integration.protobuf import describe

PACKAGE = "catbird.etcd"

# Message → its fields as `name number type`; `*` before a type: repeated.
FIELDS = {
    "KeyValue": "key 1 bytes, create_revision 2 int64, mod_revision 3 int64, version 4 int64, value 5 bytes, "
    "lease 6 int64",
    "Event": "type 1 int32, kv 2 KeyValue, prev_kv 3 KeyValue",
    "ResponseHeader": "cluster_id 1 uint64, member_id 2 uint64, revision 3 int64, raft_term 4 uint64",
    "RangeRequest": "key 1 bytes, range_end 2 bytes, limit 3 int64, revision 4 int64, serializable 7 bool, "
    "keys_only 8 bool, count_only 9 bool",
    "RangeResponse": "header 1 ResponseHeader, kvs 2 *KeyValue, more 3 bool, count 4 int64",
    "PutRequest": "key 1 bytes, value 2 bytes, lease 3 int64, prev_kv 4 bool",
    "PutResponse": "header 1 ResponseHeader, prev_kv 2 KeyValue",
    "DeleteRangeRequest": "key 1 bytes, range_end 2 bytes, prev_kv 3 bool",
    "DeleteRangeResponse": "header 1 ResponseHeader, deleted 2 int64, prev_kvs 3 *KeyValue",
    "RequestOp": "request_range 1 RangeRequest, request_put 2 PutRequest, request_delete_range 3 DeleteRangeRequest",
    "ResponseOp": "response_range 1 RangeResponse, response_put 2 PutResponse, "
    "response_delete_range 3 DeleteRangeResponse",
    "Compare": "result 1 int32, target 2 int32, key 3 bytes, version 4 int64, create_revision 5 int64, "
    "mod_revision 6 int64, value 7 bytes, lease 8 int64",
    "TxnRequest": "compare 1 *Compare, success 2 *RequestOp, failure 3 *RequestOp",
    "TxnResponse": "header 1 ResponseHeader, succeeded 2 bool, responses 3 *ResponseOp",
    "CompactionRequest": "revision 1 int64, physical 2 bool",
    "CompactionResponse": "header 1 ResponseHeader",
    "WatchCreateRequest": "key 1 bytes, range_end 2 bytes, start_revision 3 int64, progress_notify 4 bool, "
    "prev_kv 6 bool, watch_id 7 int64, fragment 8 bool",
    "WatchRequest": "create_request 1 WatchCreateRequest",
    "WatchResponse": "header 1 ResponseHeader, watch_id 2 int64, created 3 bool, canceled 4 bool, "
    "compact_revision 5 int64, cancel_reason 6 string, fragment 7 bool, events 11 *Event",
    "LeaseGrantRequest": "TTL 1 int64, ID 2 int64",
    "LeaseGrantResponse": "header 1 ResponseHeader, ID 2 int64, TTL 3 int64, error 4 string",
    "LeaseRevokeRequest": "ID 1 int64",
    "LeaseRevokeResponse": "header 1 ResponseHeader",
    "LeaseKeepAliveRequest": "ID 1 int64",
    "LeaseKeepAliveResponse": "header 1 ResponseHeader, ID 2 int64, TTL 3 int64",
    "StatusRequest": "",
    "StatusResponse": "header 1 ResponseHeader, version 2 string, dbSize 3 int64, leader 4 uint64, raftIndex 5 uint64, "
    "raftTerm 6 uint64",
    "AuthenticateRequest": "name 1 string, password 2 string",
    "AuthenticateResponse": "header 1 ResponseHeader, token 2 string",
}

PUT, DELETE = 0, 1  # Event.type
EQUAL, GREATER = 0, 1  # Compare.result
VERSION, MOD = 0, 2  # Compare.target


MESSAGES = describe(FIELDS, PACKAGE)
