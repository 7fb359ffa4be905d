//! One line of the kernel's, without what stood before it.

use super::date::Date;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// Seconds on the kernel's clock.
    pub(super) uptime: Option<f64>,
    /// Seconds since 1970, by the program that logged it; none where it left out the
    /// zone or the year.
    pub(super) unix: Option<f64>,
    /// The date as the program that logged it showed it.
    pub(super) date: Option<Date>,
    /// Seconds on a clock that all lines of this host share: the kernel's where the
    /// log has it, else the dates'.
    pub(super) clock: Option<f64>,
    /// Who printed it (`CONFIG_PRINTK_CALLER`): `T12` a task, `C0` a CPU.
    pub(super) caller: Option<String>,
    /// The host, where the line names it.
    pub(super) host: Option<String>,
    /// The boot's id, where the line names it.
    pub(super) boot: Option<String>,
    /// The time that all lines of one message share, on whichever clock most lines of the
    /// log have; none where this line does not show it.
    pub(super) moment: Option<f64>,
    /// The log keeps messages apart, and one begins here.
    pub(super) begins_message: bool,
    /// Not a line of its own: a message of more than one line continues.
    pub(super) continues: bool,
    /// False where nearly all other lines show that the kernel wrote them and this
    /// one does not.
    pub(super) understood: bool,
    /// Not a line: the log says that another boot starts.
    pub(super) new_boot: bool,
    /// The rest, without white space at its end.
    pub(super) text: String,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            uptime: None,
            unix: None,
            date: None,
            clock: None,
            caller: None,
            host: None,
            boot: None,
            moment: None,
            begins_message: false,
            continues: false,
            understood: true,
            new_boot: false,
            text: String::new(),
        }
    }
}
