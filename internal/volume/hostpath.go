package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// setupHostPath checks a hostPath volume against its type and makes what "...OrCreate" asks for.
// With no type nothing is checked; a directory is made where there is nothing, as CRI runtimes do.
func setupHostPath(s *corev1.HostPathVolumeSource) error {
	if slices.Contains(strings.Split(s.Path, "/"), "..") {
		return fmt.Errorf("invalid HostPath `%s`: must not contain '..'", s.Path)
	}
	kind := corev1.HostPathUnset
	if s.Type != nil {
		kind = *s.Type
	}
	_, err := os.Stat(s.Path)
	missing := errors.Is(err, fs.ErrNotExist)
	switch kind {
	case corev1.HostPathUnset:
		if missing {
			return os.MkdirAll(s.Path, 0o755)
		}
		return nil
	case corev1.HostPathDirectoryOrCreate:
		if missing {
			return os.MkdirAll(s.Path, 0o755)
		}
		kind = corev1.HostPathDirectory
	case corev1.HostPathFileOrCreate:
		if missing {
			f, err := os.OpenFile(s.Path, os.O_CREATE, 0o644)
			if err != nil {
				return err
			}
			return f.Close()
		}
		kind = corev1.HostPathFile
	}
	text, ok := map[corev1.HostPathType]string{
		corev1.HostPathDirectory: "directory", corev1.HostPathFile: "file", corev1.HostPathSocket: "socket file",
		corev1.HostPathCharDev: "character device", corev1.HostPathBlockDev: "block device",
	}[kind]
	if !ok {
		return fmt.Errorf("%s is an invalid volume type", kind)
	}
	return checkHostPath(s.Path, kind, text)
}

func checkHostPath(path string, want corev1.HostPathType, text string) error {
	got, err := hostPathType(path)
	if err != nil {
		return fmt.Errorf("hostPath type check failed, %s is not a %s, unable to determine its type: %w", path, text, err)
	}
	if got != want {
		return fmt.Errorf("hostPath type check failed: %s is not a %s, it's a %s", path, text, got)
	}
	return nil
}

func hostPathType(path string) (corev1.HostPathType, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("path %q does not exist", path)
	}
	if err != nil {
		return "", err
	}
	switch m := info.Mode(); {
	case m.IsDir():
		return corev1.HostPathDirectory, nil
	case m.IsRegular():
		return corev1.HostPathFile, nil
	case m&fs.ModeSocket != 0:
		return corev1.HostPathSocket, nil
	case m&fs.ModeCharDevice != 0:
		return corev1.HostPathCharDev, nil
	case m&fs.ModeDevice != 0:
		return corev1.HostPathBlockDev, nil
	default:
		return "", errors.New("only recognise file, directory, socket, block device and character device")
	}
}
