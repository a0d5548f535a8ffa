package proxy

var OverflowUser = overflowUser
