package audit

// What tests need to put a failing disk under a Writer, and to fuzz the encoder.
type (
	FileSystem = fileSystem
	File       = file
	OSFiles    = osFiles
)

var OpenOn = open

// MaxString is as much of one text as is written at most.
const MaxString = 4096

// AppendString appends as much.
func AppendString(b []byte, s string) []byte { return appendString(b, s, MaxString) }

// Waiting returns how many callers collect for the next write.
func (w *Writer) Waiting() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		return 0
	}
	return w.next.lines
}
