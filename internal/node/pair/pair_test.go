package pair

import (
	"io"
	"net"
	"testing"
)

func TestLoopbackListener(t *testing.T) {
	l := New("n1")
	if _, err := l.DialNode(t.Context(), "n2"); err == nil {
		t.Error("dialled a node that is not there")
	}
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(c, c)
			c.Close()
		}
		done <- err
	}()
	c, err := l.DialNode(t.Context(), "n1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "ping" {
		t.Errorf("echo = %q, %v", b, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	l.Close()
	if _, err := l.DialNode(t.Context(), "n1"); err == nil {
		t.Error("dialled a closed listener")
	}
	if _, err := l.Accept(); err == nil {
		t.Error("accepted from a closed listener")
	}
}
