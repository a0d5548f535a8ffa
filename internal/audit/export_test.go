package audit

// These let tests put a failing disk under a Writer, and fuzz the encoder.
type (
	FileSystem = fileSystem
	File       = file
	OSFiles    = osFiles
)

var OpenOn = open

// MaxString is the limit of AppendString.
const MaxString = 4096

// AppendString appends s as a JSON string of at most MaxString bytes.
func AppendString(b []byte, s string) []byte { return appendString(b, s, MaxString) }

// Waiting returns how many callers have joined the next write.
func (w *Writer) Waiting() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		return 0
	}
	return w.next.lines
}
