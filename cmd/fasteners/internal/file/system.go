package file

// A System is what the operating system tells about the file system of a directory.
type System struct {
	Type    string   `json:"type"` // "" if unknown
	Source  string   `json:"source,omitempty"`
	Mount   string   `json:"mount,omitempty"`
	Options string   `json:"options,omitempty"`
	Notes   []string `json:"notes,omitempty"` // what follows for locks
}

// SystemOf returns what is known of the file system of dir.
func SystemOf(dir string) System { return systemOf(dir) }

// String returns the type.
func (s System) String() string {
	if s.Type == "" {
		return "unknown"
	}
	return s.Type
}

// dependsOnServer is a note for file systems of other machines.
const dependsOnServer = "whether processes of other machines are excluded depends on the server"
