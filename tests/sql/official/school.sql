-- Names that occur twice, students without courses, grades that are missing.
CREATE TABLE teacher (id INTEGER PRIMARY KEY, name TEXT, room INTEGER);
CREATE TABLE course (id INTEGER PRIMARY KEY, title TEXT, credits INTEGER, teacher_id INTEGER REFERENCES teacher (id));
CREATE TABLE student (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, city TEXT);
CREATE TABLE enrolment (
    student_id INTEGER REFERENCES student (id),
    course_id INTEGER REFERENCES course (id),
    grade REAL
);
INSERT INTO teacher VALUES (1, 'Ada', 12), (2, 'Karl', 7), (3, 'Mira', 12);
INSERT INTO course VALUES (1, 'Algebra', 5, 1), (2, 'Botany', 3, 2), (3, 'Chess', 3, NULL), (4, 'Drawing', 4, 1);
INSERT INTO student VALUES
    (1, 'Anna', 20, 'Oslo'), (2, 'Ben', 22, 'Rome'), (3, 'Anna', 25, 'Rome'), (4, 'Dora', 20, NULL), (5, 'Emil', 31, 'Oslo');
INSERT INTO enrolment VALUES (1, 1, 4.5), (1, 2, 3.0), (2, 1, NULL), (3, 2, 4.5), (3, 3, 2.0), (4, 1, 5.0);
