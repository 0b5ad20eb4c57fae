package netd

import "syscall"

type rawConn = syscall.RawConn
