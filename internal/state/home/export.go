package home

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/podman-swarm/podman-swarm/internal/state/codec"
	"github.com/podman-swarm/podman-swarm/internal/state/machine"
)

// An export is
//
//	"psw-export"  byte version  the machine's snapshot  uint32 crc of all before  "end."
const (
	exportMagic   = "psw-export"
	exportVersion = 1
	exportEnd     = "end."
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// Export writes a machine's state with a checksum.
func Export(m *machine.Machine, w io.Writer) error {
	sum := crc32.New(castagnoli())
	both := io.MultiWriter(w, sum)
	if _, err := both.Write(append([]byte(exportMagic), exportVersion)); err != nil {
		return err
	}
	if err := Dump(m, both); err != nil {
		return err
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, sum.Sum32()), exportEnd...))
	return err
}

// ReadExport returns the snapshot that an export holds.
func ReadExport(from io.Reader) ([]byte, error) {
	b, err := io.ReadAll(from)
	if err != nil {
		return nil, err
	}
	head, tail := len(exportMagic)+1, 4+len(exportEnd)
	if len(b) < head+tail || string(b[:len(exportMagic)]) != exportMagic {
		return nil, errors.New("this is no export of the state")
	}
	if err := codec.CheckVersion("the export", uint32(b[head-1]), exportVersion); err != nil {
		return nil, err
	}
	body, end := b[:len(b)-tail], b[len(b)-tail:]
	sum := crc32.Checksum(body, castagnoli())
	if string(end[4:]) != exportEnd || binary.BigEndian.Uint32(end) != sum {
		return nil, errors.New("the export is damaged or cut short: take another one")
	}
	return body[head:], nil
}
