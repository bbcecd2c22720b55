"""What people see and touch: widgets on a session, the messages between Python and the page."""
