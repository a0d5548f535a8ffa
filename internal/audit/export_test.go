package audit

// What tests need to put a failing disk under a Writer, and to fuzz the encoder.
type (
	FileSystem = fileSystem
	File       = file
	OSFiles    = osFiles
)

var (
	OpenOn       = open
	AppendString = appendString
)

const MaxString = maxString

// Waiting returns how many callers collect for the next write.
func (w *Writer) Waiting() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		return 0
	}
	return w.next.lines
}
